"""The lock of the one writer of all processes: who has it, who waits for it, and how it is given up."""

from __future__ import annotations

import gc
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from latchstore import LockTimeoutError
from tests.fork.children import end_in_time, in_child
from tests.interrupts.striker import Striker
from tests.schedules import TIMEOUT, in_another_thread

pytest.importorskip("fcntl")

from latchstore.contract.file_locks import WRITER_LOCK
from latchstore.sqlite.writer_lock import Hold, WriterLock


@pytest.fixture
def path(tmp_path: Path) -> str:
    database = tmp_path / "store"
    database.touch()
    return str(database)


@pytest.fixture
def lock(path: str) -> WriterLock:
    return WriterLock(path)


class Other:
    """A forked process, which does what it is told line by line."""

    def __init__(self, path: str) -> None:
        lines, to_child = os.pipe()
        from_child, answers = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of earlier tests
            self.pid = os.fork()
        if not self.pid:
            os.close(to_child)
            try:
                serve(path, os.fdopen(lines), answers)
            finally:
                os._exit(0)
        os.close(lines)
        os.close(answers)
        self._lines = os.fdopen(to_child, "w")
        self._answers = os.fdopen(from_child)

    def start(self, line: str) -> None:
        print(line, file=self._lines, flush=True)

    def answer(self) -> str:
        return self._answers.readline().rstrip("\n")

    def do(self, line: str) -> str:
        self.start(line)
        return self.answer()

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        if not self._lines.closed:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._lines.close()
            self._answers.close()


def serve(path: str, lines: Iterable[str], answers: int) -> None:
    """Do what the lines tell, in the child."""
    end_in_time()
    lock = WriterLock(path)
    holds: list[Hold] = []
    for line in lines:
        word, *rest = line.split()
        answer = "done"
        try:
            if word in ("acquire", "try"):
                holds.append(lock.acquire(rest[0], TIMEOUT if word == "acquire" else 0.0))
            elif word == "release":
                holds.pop().release()
            else:
                count(lock, path, int(rest[0]))
        except LockTimeoutError as error:
            answer = str(error)
        os.write(answers, f"{answer}\n".encode())


def count(lock: WriterLock, path: str, times: int) -> None:
    """Add to the number in a file: some of these are lost unless the lock keeps others out."""
    for _ in range(times):
        hold = lock.acquire("count", TIMEOUT)
        number = int(Path(path).read_text() or 0)
        Path(path).write_text(str(number + 1))
        hold.release()


@pytest.fixture
def other(path: str) -> Iterator[Other]:
    process = Other(path)
    yield process
    process.kill()


def test_one_has_it_at_a_time(lock: WriterLock, other: Other) -> None:
    hold = lock.acquire("mine", 0)
    assert hold.is_open
    assert "no write lock in 0 s" in other.do("try theirs")
    hold.release()
    assert not hold.is_open
    assert other.do("try theirs") == "done"
    with pytest.raises(LockTimeoutError):
        lock.acquire("mine", 0)
    assert other.do("release") == "done"
    lock.acquire("mine", 0).release()


def test_the_error_names_process_thread_purpose_and_seconds(lock: WriterLock, other: Other) -> None:
    assert other.do("acquire moving") == "done"
    with pytest.raises(LockTimeoutError) as caught:
        lock.acquire("set 'k'", 0.05)
    message = (
        r"set 'k': no write lock in 0\.05 s, held for \d+\.\d{3} s by "
        rf"process {other.pid}, thread 'MainThread' \(moving\)"
    )
    assert re.fullmatch(message, str(caught.value))


def test_another_thread_of_the_process_is_named(lock: WriterLock) -> None:
    hold = in_another_thread(lambda: lock.acquire("transaction 'a\0b \ud800'", 0))
    message = rf"by process {os.getpid()}, thread '.+' \(transaction 'a b \?'\)$"
    with pytest.raises(LockTimeoutError, match=message):
        lock.acquire("mine", 0)
    hold.release()


def test_who_waits_gets_it(lock: WriterLock, other: Other) -> None:
    hold = lock.acquire("mine", 0)
    other.start("acquire theirs")
    hold.release()
    assert other.answer() == "done"


def wait_for_mark(path: str) -> None:
    """Return when one has waited so long for the lock that it is to be the next."""
    record = os.stat(path + WRITER_LOCK).st_size
    end = time.monotonic() + TIMEOUT
    while os.stat(path + WRITER_LOCK).st_size == record:
        assert time.monotonic() < end
        time.sleep(0)


def test_who_has_waited_for_long_is_the_next(lock: WriterLock, path: str, other: Other) -> None:
    for _ in range(3):
        hold = lock.acquire("mine", 0)
        other.start("acquire theirs")
        wait_for_mark(path)
        hold.release()
        with pytest.raises(LockTimeoutError, match="no write lock in 0 s"):
            lock.acquire("mine again", 0)
        assert other.answer() == "done"
        assert other.do("release") == "done"
        lock.acquire("mine again", 0).release()


def test_a_killed_process_is_not_the_next(lock: WriterLock, path: str, other: Other) -> None:
    hold = lock.acquire("mine", 0)
    size = os.stat(path + WRITER_LOCK).st_size
    other.start("acquire theirs")
    wait_for_mark(path)
    other.kill()
    hold.release()
    lock.acquire("mine again", 0).release()
    assert os.stat(path + WRITER_LOCK).st_size == size


@pytest.mark.parametrize("stands", [False, True], ids=["clock", "clock that stands"])
def test_a_stopped_process_keeps_nobody_waiting(
    lock: WriterLock, path: str, other: Other, stands: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stands:
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now)
    hold = lock.acquire("mine", 0)
    other.start("acquire theirs")
    wait_for_mark(path)
    os.kill(other.pid, signal.SIGSTOP)
    os.waitpid(other.pid, os.WUNTRACED)
    hold.release()
    lock.acquire("mine again", TIMEOUT).release()
    lock.acquire("and again", 0).release()
    os.kill(other.pid, signal.SIGCONT)
    assert other.answer() == "done"


def test_a_stopped_process_is_passed_over_by_those_that_do_not_wait(
    lock: WriterLock, path: str, other: Other
) -> None:
    hold = lock.acquire("mine", 0)
    other.start("acquire theirs")
    wait_for_mark(path)
    os.kill(other.pid, signal.SIGSTOP)
    os.waitpid(other.pid, os.WUNTRACED)
    hold.release()
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            lock.acquire("mine again", 0).release()
            break
        except LockTimeoutError:
            assert time.monotonic() < end


def test_who_was_the_next_makes_room_for_another_one(
    lock: WriterLock, path: str, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert other.do("acquire theirs") == "done"
    marked = threading.Event()
    truncate = os.ftruncate

    def mark_and_reset(descriptor: int, length: int) -> None:
        truncate(descriptor, length)
        truncate(descriptor, length - 1)  # as a process does that has waited longer
        marked.set()

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", mark_and_reset)
        thread = threading.Thread(target=lambda: lock.acquire("mine", TIMEOUT).release())
        thread.start()
        assert marked.wait(TIMEOUT)
        assert other.do("release") == "done"
        thread.join(TIMEOUT)
    hold = lock.acquire("mine again", 0)
    other.start("acquire theirs")
    wait_for_mark(path)
    hold.release()
    assert other.answer() == "done"


def test_a_signal_handler_does_not_wait_for_its_own_thread_to_be_the_next(
    lock: WriterLock, path: str, other: Other
) -> None:
    heard: list[str] = []

    def handler(number: int, frame: Any) -> None:
        heard.append(other.do("release"))
        lock.acquire("in the handler", 0).release()
        heard.append("acquired")

    def strike() -> None:
        wait_for_mark(path)
        os.kill(os.getpid(), signal.SIGUSR1)

    other.do("acquire theirs")
    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=strike)
    try:
        thread.start()
        lock.acquire("mine", TIMEOUT).release()
    finally:
        thread.join(TIMEOUT)
        signal.signal(signal.SIGUSR1, before)
    assert heard == ["done", "acquired"]


def test_nothing_is_lost_between_processes_and_threads(path: str) -> None:
    others = [Other(path) for _ in range(3)]
    for each in others:
        each.start("count 100")
    lock = WriterLock(path)

    threads = [threading.Thread(target=count, args=(lock, path, 50)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert [each.answer() for each in others] == ["done"] * 3
    assert Path(path).read_text() == "400"
    for each in others:
        each.kill()


def test_a_killed_holder_has_it_no_more(lock: WriterLock, other: Other) -> None:
    assert other.do("acquire theirs") == "done"
    other.kill()
    lock.acquire("mine", 0).release()


def test_a_hold_that_nobody_has_is_given_up(lock: WriterLock, other: Other) -> None:
    hold = lock.acquire("mine", 0)
    del hold
    assert other.do("try theirs") == "done"


def test_it_is_given_up_by_one_call(lock: WriterLock, other: Other) -> None:
    hold = lock.acquire("mine", 0)
    hold.drop()
    assert other.do("try theirs") == "done"
    hold.drop()
    hold.release()
    with pytest.raises(LockTimeoutError):
        lock.acquire("mine", 0)


def test_giving_it_up_twice_takes_it_from_nobody(lock: WriterLock, other: Other) -> None:
    first = lock.acquire("first", 0)
    first.release()
    second = lock.acquire("second", 0)
    first.release()
    first.drop()
    del first
    assert "(second)" in other.do("try theirs")
    second.release()


def test_a_signal_handler_does_not_wait_for_its_own_thread(lock: WriterLock) -> None:
    hold = lock.acquire("mine", 0)
    with pytest.raises(LockTimeoutError, match=r"this thread is already writing .* would wait for itself"):
        lock.acquire("handler", -1)
    hold.release()


def test_wherever_it_comes(lock: WriterLock) -> None:
    """A call in the middle of another one of its thread is refused at once, or gets the lock."""
    answers = set()

    def call() -> None:
        try:
            lock.acquire("handler", -1).release()
            answers.add("free")
        except LockTimeoutError:
            answers.add("refused")

    number = 1
    while True:
        with Striker(number, instead=call) as striker:
            hold = lock.acquire("mine", TIMEOUT)
            hold.release()
        if striker.place is None:
            break
        number += 1
    assert answers == {"free", "refused"}


class Struck(BaseException):
    """An exception that is of nobody else."""


def use(lock: WriterLock) -> None:
    hold = lock.acquire("mine", TIMEOUT)
    try:
        pass
    finally:
        hold.drop()


def acquire_and_release(lock: WriterLock) -> None:
    hold = lock.acquire("mine", TIMEOUT)
    try:
        hold.release()
    finally:
        hold.drop()


@pytest.mark.parametrize("kind", [Struck, MemoryError])
@pytest.mark.parametrize("function", [use, acquire_and_release])
def test_no_strike_leaves_it_taken(path: str, function: Any, kind: type[BaseException]) -> None:
    asking, number = WriterLock(path), 1
    caught: list[BaseException] = []
    while True:
        lock = WriterLock(path)
        striker = Striker(number, kind, files=(Path(__file__),))
        try:
            with striker:
                function(lock)
        except kind as error:
            caught.append(error)  # with its traceback
        hold = asking.acquire("asking", 0)
        hold.release()
        if striker.place is None:
            break
        number += 1
    assert number > 20
    gc.collect()


def test_a_forked_child_has_no_part_in_it(lock: WriterLock, other: Other) -> None:
    hold = lock.acquire("parent", 0)

    def child() -> None:
        lock.renew_in_child()
        hold.release()  # which a forgotten block may do
        with pytest.raises(LockTimeoutError, match=r"\(parent\)"):
            lock.acquire("child", 0)

    assert in_child(child) == ""
    assert "(parent)" in other.do("try theirs")
    hold.release()
    assert other.do("try theirs") == "done"


def test_a_living_child_does_not_keep_the_lock_of_a_killed_parent(path: str, other: Other) -> None:
    program = f"""
import os, signal
from latchstore.sqlite.writer_lock import WriterLock
lock = WriterLock({path!r})
hold = lock.acquire("parent", 0)
read, write = os.pipe()
if not os.fork():
    lock.renew_in_child()
    os.write(write, b"x")
    print(os.getpid(), flush=True)
    signal.pause()
os.read(read, 1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        parent.wait(TIMEOUT)
        assert other.do("try theirs") == "done"
    finally:
        os.kill(child, signal.SIGKILL)
        parent.communicate()


def test_a_file_that_was_removed_is_made_again(lock: WriterLock, path: str, other: Other) -> None:
    lock.acquire("mine", 0).release()
    assert other.do("acquire theirs") == "done"
    assert other.do("release") == "done"
    os.unlink(f"{path}-writer")
    hold = lock.acquire("mine", 0)
    assert "(mine)" in other.do("try theirs")
    hold.release()


def test_whoever_may_write_the_database_may_lock_it(lock: WriterLock, path: str) -> None:
    os.chmod(path, 0o664)
    before = os.umask(0o077)
    try:
        lock.acquire("mine", 0).release()
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(f"{path}-writer").st_mode) == 0o664


@pytest.mark.parametrize("kind", ["directory", "link", "pipe"])
def test_something_else_in_its_place_is_refused(lock: WriterLock, path: str, kind: str) -> None:
    victim = Path(path).with_name("victim")
    if kind == "directory":
        os.mkdir(f"{path}-writer")
    elif kind == "pipe":
        os.mkfifo(f"{path}-writer")
    else:
        victim.write_text("precious")
        os.symlink(victim, f"{path}-writer")
    with pytest.raises(OSError, match="-writer"):
        lock.acquire("mine", 0)
    if kind == "link":
        assert victim.read_text() == "precious"
        victim.unlink()
        with pytest.raises(OSError, match="-writer"):
            lock.acquire("mine", 0)
        assert not victim.exists()


def test_a_record_of_somebody_else_is_no_failure(lock: WriterLock, path: str) -> None:
    hold = in_another_thread(lambda: lock.acquire("mine", 0))
    for record in (b"", b"x", b"1\0x\0y\0z", os.urandom(512)):
        Path(f"{path}-writer").write_bytes(record)
        with pytest.raises(LockTimeoutError, match="held by another process"):
            lock.acquire("other", 0)
    assert isinstance(hold, Hold)
    hold.release()
