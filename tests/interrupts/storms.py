"""Storms: an operation is run again and again on one store while real exceptions strike its thread.

A burst of strikes is one, two or three exceptions in quick succession, so that some come while the first is
being handled, as when somebody presses Ctrl-C three times. After each burst the store is used from another
thread and from the one that was struck; after some hundred of them everything is compared.
"""

from __future__ import annotations

import contextlib
import ctypes
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from types import CodeType, FrameType
from typing import Any

from latchstore import LockTimeoutError, RevisionMismatchError, TransactionConflictError
from tests.interrupts.beside import Beside
from tests.interrupts.checks import outcomes_of
from tests.interrupts.exhaustion import Count
from tests.interrupts.helper import Wrong, helper, shown
from tests.interrupts.operations import LEAVES_CLOSED, OPERATIONS, subject_for
from tests.interrupts.striker import set_exception
from tests.interrupts.subjects import BESIDE, FILL, TIMEOUT, CacheSubject, Contents, Subject, replayed
from tests.interrupts.waiting import WAITING

#: What storms do not strike: operations that begin threads of the `threading` module and wait for them, whose
#: own locks an exception may leave taken (other threads that write make operations wait all the same), and
#: one that leaves another listener each time.
STORMED = [name for name in OPERATIONS if name not in WAITING and name != "close while events pend"]

#: What changes keys that other threads need, or closes what they use.
ALONE = (
    *LEAVES_CLOSED,
    "mapping, popitem",
    "mapping, clear",
    "cache: reads",
    "cache: another one on the store",
)

#: How many exceptions come in quick succession.
BURSTS = (1, 1, 2, 3)

#: How often an operation is run at most while nothing strikes it.
RUNS = 300


class Struck(BaseException):
    """Set by another thread."""


class Storm:
    """One store, one operation, and whoever strikes it.

    Parameters
    ----------
    name : str
        Of the operation.
    chance : random.Random
        When the strikes come.
    contended : bool
        Whether other threads read and write meanwhile.
    """

    def __init__(self, name: str, chance: random.Random, contended: bool) -> None:
        self.name = name
        self.chance = chance
        self.operation = OPERATIONS[name]
        outcomes = outcomes_of(name)
        self.contents = [state.contents for state in outcomes.states]
        if name == "mapping, popitem":  # pops what was added last, by the restoring too
            self.contents += [{key: FILL[key] for key in FILL if key != popped} for popped in FILL]
        self.subject: Subject = subject_for(name)
        self.changes = bool(outcomes.told) or "index" in name
        self.expected: tuple[type[Exception], ...] = (RevisionMismatchError, TransactionConflictError)
        if isinstance(self.subject, CacheSubject):
            self.changes = True
            self.expected += (KeyError,)  # evicted
        # What all events so far amount to, and the last revision that they told of.
        self.model: Contents = self.subject.contents()
        self.revision: int = self.subject.store.info()["revision"]
        self.others = Beside(self.subject) if contended else None

    # -- in the thread that is struck ---------------------------------------------------------------

    def operate(self, goes_on: Callable[[], bool]) -> None:
        """Run the operation again and again; what is struck is this function and whatever it calls."""
        runs = 0
        while runs < RUNS and goes_on():
            runs += 1
            self._operate_once()

    def _operate_once(self) -> None:
        subject = self.subject
        if self.changes or subject.undo:
            self._restore()
        with contextlib.suppress(*self.expected):
            self.operation(subject)

    def _restore(self) -> None:
        subject = self.subject
        for undo in subject.undo:
            undo()
        subject.undo.clear()
        if self.name == "add_index":
            with contextlib.suppress(KeyError):
                subject.store.remove_index("n")
        elif self.name == "remove_index":
            with contextlib.suppress(ValueError):
                subject.store.add_index("kind")
        subject.restore()

    # -- checks -------------------------------------------------------------------------------------

    def look(self) -> None:
        """Raise `Wrong` unless the store can be read and written here, and is as before or as after."""
        store = self.subject.store
        try:
            if self.name in LEAVES_CLOSED:
                store.connect()
            if store.current_transaction() is not None:
                raise Wrong("a transaction is open")
            self.subject.probe()
            contents = self.subject.state().contents  # in which numbers that were allotted anew are equal
            len(list(store.query(kind="a")))
        except LockTimeoutError as error:
            raise Wrong(f"a lock is taken: {error}") from None
        if self.others is not None:
            self.others.check_sum(contents)
        if not isinstance(self.subject, CacheSubject):
            own = {key: entry for key, entry in contents.items() if not key.startswith(BESIDE)}
            if own not in self.contents and own != FILL:
                raise Wrong(f"neither before nor after: {own}")
        elif len(contents) > self.subject.entries:
            raise Wrong(f"the bound is exceeded: {sorted(contents)}")

    def compare(self) -> None:
        """Compare contents, events, revisions and indexes, with nobody else at work."""
        subject = self.subject
        store = subject.store
        with self.others.paused() if self.others is not None else contextlib.nullcontext():
            for undo in subject.undo:
                undo()
            subject.undo.clear()
            store.flush(TIMEOUT)
            info = store.info()
            if info["pending_events"] != 0:
                raise Wrong("events are pending after a flush")
            if self.name in LEAVES_CLOSED:
                return
            subject.check()
            self._compare_events(info["revision"])
            if isinstance(subject, CacheSubject):
                subject.probe()  # books are right after the first operation
                subject.check_books()

    def _compare_events(self, revision: int) -> None:
        subject = self.subject
        events = subject.events()
        told = [(type(event).__name__, event.key, event.revision) for event in events]
        heard = [tuple(change) for change in subject.heard]
        subject.heard.clear()
        if heard != told:
            raise Wrong(f"listeners heard {_difference(heard, told)}")
        if len(set(told)) != len(told):
            raise Wrong("an event came twice")
        revisions = [each[2] for each in told]
        if revisions != sorted(revisions) or set(revisions) != set(range(self.revision + 1, revision + 1)):
            raise Wrong(
                f"revisions {self.revision + 1} to {revision}, events of {revisions[:3]}...{revisions[-3:]}"
            )
        self.revision = revision
        self.model = replayed(self.model, events)
        if self.model != subject.contents():
            raise Wrong("the events do not add up to the contents")

    def end(self) -> None:
        """End the threads, and close the store."""
        if self.others is not None:
            self.others.end()
        with contextlib.suppress(Exception):
            self.subject.store.close(TIMEOUT)


def _difference(heard: list[Any], told: list[Any]) -> str:
    pairs = enumerate(zip(heard, told, strict=False))
    place = next((number for number, (a, b) in pairs if a != b), min(len(heard), len(told)))
    first = f"first {heard[place : place + 2]} not {told[place : place + 2]}"
    return f"{len(heard)} and watches {len(told)}, {first}"


# -- signals --------------------------------------------------------------------------------------


class Interrupter:
    """A signal handler that raises KeyboardInterrupt, if a function is what it interrupts.

    Each signal has the next one sent. A timer that goes off by itself again and again would call the handler
    inside of itself, ever deeper.

    Parameters
    ----------
    code : code
        Of the function that is struck, with whatever it calls.

    Attributes
    ----------
    left : int
        How many it raises yet.
    interval : float
        Seconds from one to the next.
    struck : int
        How many it has raised.
    """

    def __init__(self, code: CodeType) -> None:
        self._code = code
        self.left = 0
        self.interval = 0.0
        self.struck = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.left <= 0:
            return
        if not _is_in(frame, self._code):
            signal.setitimer(signal.ITIMER_REAL, 1e-4)
            return
        self.left -= 1
        self.struck += 1
        if self.left > 0:
            signal.setitimer(signal.ITIMER_REAL, self.interval)
        raise KeyboardInterrupt

    def goes_on(self) -> bool:
        """Tell whether it has yet to raise the first."""
        return self.left > 0


def _is_in(frame: FrameType | None, code: CodeType) -> bool:
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def strike_by_signals(storm: Storm, strikes: int, deadline: float, count: Count) -> None:
    """Strike the main thread, until there were so many strikes or the time is over."""
    interrupter = Interrupter(Storm.operate.__code__)
    chance = storm.chance
    before = signal.signal(signal.SIGALRM, interrupter)
    idle = 0
    try:
        while interrupter.struck < strikes and time.monotonic() < deadline and idle < 50:
            interrupter.left = chance.choice(BURSTS)
            struck = interrupter.struck
            interrupter.interval = 10 ** chance.uniform(-5.3, -4.0)
            try:
                signal.setitimer(signal.ITIMER_REAL, 10 ** chance.uniform(-5.5, -3.3))
                storm.operate(interrupter.goes_on)
            except BaseException as error:
                if interrupter.struck == struck:
                    raise
                del error
            interrupter.left = 0
            signal.setitimer(signal.ITIMER_REAL, 0)
            count.struck = interrupter.struck
            idle = idle + 1 if interrupter.struck == struck else 0
            helper().ask(storm.look)
            storm.look()
    finally:
        interrupter.left = 0
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- exceptions that another thread sets -----------------------------------------------------------


class Worker:
    """A thread that is struck by exceptions that another one sets.

    One that comes when the operation is over ends the thread; then there is another one.
    """

    def __init__(self) -> None:
        self._asked: SimpleQueue[Callable[[], object]]
        self._answers: SimpleQueue[BaseException | None]
        self.caught = 0
        self.began = False
        self._start()

    def _start(self) -> None:
        # Queues of its own: what the last one has not taken, or not been asked for, is nobody's.
        self._asked = SimpleQueue()
        self._answers = SimpleQueue()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asked, answers = self._asked, self._answers
        while (call := asked.get()) is not None:
            answer: BaseException | None = None
            try:
                call()
            except Struck as error:
                self.caught += _strikes_of(error)
            except BaseException as error:
                answer = error
            answers.put(answer)

    def ask(self, call: Callable[[], object]) -> None:
        """Have it call something; a new thread does so if the last one has ended."""
        if not self.thread.is_alive():
            self._start()
        self._asked.put(call)

    def goes_on(self, caught: int) -> bool:
        """Note that the operation runs; tell whether it is to run again."""
        self.began = True
        return self.caught == caught

    def wait_until_begun(self) -> None:
        """Wait until the operation runs."""
        while not self.began and self.thread.is_alive():
            time.sleep(0)

    def strike(self) -> None:
        """Set an exception in it."""
        ident = self.thread.ident
        set_exception(ctypes.c_ulong(ident or 0), ctypes.py_object(Struck))

    def calm(self) -> None:
        """Take back what was set and has not come."""
        set_exception(ctypes.c_ulong(self.thread.ident or 0), None)

    def wait(self) -> None:
        """Wait for the answer; raise what the call has raised, `Wrong` if it never returns."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                error = self._answers.get(timeout=0.001)
            except Empty:
                if not self.thread.is_alive():
                    return
                if time.monotonic() > deadline:
                    raise Wrong("the thread that was struck waits for ever") from None
            else:
                if error is not None:
                    raise error
                return

    def end(self) -> None:
        """Have the thread end."""
        self._asked.put(None)  # type: ignore[arg-type]


def _strikes_of(error: BaseException | None) -> int:
    strikes = 0
    while error is not None:
        strikes += isinstance(error, Struck)
        error = error.__context__
    return strikes


def strike_from_outside(storm: Storm, strikes: int, deadline: float, count: Count) -> None:
    """Strike another thread, until there were so many strikes or the time is over."""
    worker = Worker()
    chance = storm.chance
    idle = 0
    try:
        while worker.caught < strikes and time.monotonic() < deadline and idle < 50:
            before = worker.caught
            worker.began = False
            worker.ask(lambda: storm.operate(lambda: worker.goes_on(before)))  # noqa: B023
            worker.wait_until_begun()
            for _ in range(chance.choice(BURSTS)):
                spin(10 ** chance.uniform(-5.5, -3.5))
                worker.strike()
            worker.wait()
            worker.calm()
            count.struck = worker.caught
            idle = idle + 1 if worker.caught == before else 0
            storm.look()
            worker.ask(storm.look)
            worker.wait()
    finally:
        worker.calm()
        worker.end()


def spin(seconds: float) -> None:
    """Let other threads run for a time that is too short for a sleep."""
    over = time.monotonic() + seconds
    while time.monotonic() < over:
        time.sleep(0)


# -- both -----------------------------------------------------------------------------------------

Strike = Callable[[Storm, int, float, Count], None]

STORMS: dict[str, tuple[Strike, bool]] = {
    "signals": (strike_by_signals, False),
    "signals, contended": (strike_by_signals, True),
    "async": (strike_from_outside, False),
    "async, contended": (strike_from_outside, True),
}


def storm(judge: str, name: str, strikes: int, deadline: float, chance: random.Random) -> Count:
    """Have one of the judges strike one operation so many times on a store of its own."""
    strike, contended = STORMS[judge]
    count = Count()
    target = Storm(name, chance, contended)
    with switching_often():
        try:
            strike(target, strikes, deadline, count)
            target.compare()
        except Exception as error:
            count.wrong.append(f"{judge}: {name}: {shown(error)}")
        finally:
            target.end()
    return count


@contextlib.contextmanager
def switching_often() -> Iterator[None]:
    """Have threads take turns often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def stormed(judge: str, names: list[str]) -> list[str]:
    """Return which of the operations a judge strikes."""
    contended = STORMS[judge][1]
    return [name for name in names if name in STORMED and not (contended and name in ALONE)]
