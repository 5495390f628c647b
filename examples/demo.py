"""``python -m latchstore demo``: the same threads do the same work on a plain dict and on a store.

`OnDict` is what one writes first, and its checks fail. `OnStore` does the same with latchstore. Each scene
shows the methods in which the two differ, runs them, and checks what the threads have seen.
"""

from __future__ import annotations

import argparse
import inspect
import shutil
import sys
import textwrap
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from importlib import import_module
from itertools import zip_longest
from typing import Any

from latchstore import DictMemoryStore, EventManager, StoreModificationEvent

THREADS = 4
#: Visits that each thread counts, transfers, batches of jobs, jobs in a batch.
VISITS, TRANSFERS, BATCHES, BATCH = 1_000, 2_000, 200, 20
EUROS, PAIR = 1_000, ("anna", "bert")
CONTENT = {"page": {"visits": 0}, "anna": {"euros": EUROS}, "bert": {"euros": 0}}
#: Seconds after which the interpreter switches threads; usually 0.005.
SWITCH_INTERVAL = 1e-4
#: How often a scene is played on the dict at the most, as long as its threads happen to do no harm.
ATTEMPTS = 50

INTRODUCTION = f"""\
{THREADS} threads do the same work on a plain dict and on a store of latchstore.
The interpreter switches between them {0.005 / SWITCH_INTERVAL:g} times as often as usual,
so that races which else show on a busy day show within seconds."""

READ_NEXT = """
What to read next:
  python -m inspect latchstore.examples.demo   this program
  python -m latchstore stress                  the same as a proof, for stores and classes of yours as well
  https://latchstore.readthedocs.io            tutorial, guides, what you can rely on, reference"""


class OnDict:
    """A dict that threads share."""

    def __init__(self) -> None:
        self.data: dict[str, dict[str, Any]] = deepcopy(CONTENT)

    def read(self, key: str) -> dict[str, Any]:
        return deepcopy(self.data[key])

    def write(self, key: str, value: dict[str, Any]) -> None:
        self.data[key] = deepcopy(value)

    def visit(self) -> None:
        page = self.read("page")
        page["visits"] += 1
        self.write("page", page)

    def add(self, name: str, euros: int) -> None:
        euros += self.read(name)["euros"]
        self.write(name, {"euros": euros})

    def transfer(self, euros: int) -> None:
        self.add("anna", -euros)
        self.add("bert", euros)

    def total(self) -> int:
        both = [self.read(name) for name in PAIR]
        return sum(each["euros"] for each in both)

    def post(self, jobs: list[str]) -> None:
        for job in jobs:
            self.write(job, {"state": "new"})

    def jobs(self) -> list[str]:
        found = []
        for key, job in self.data.items():
            if deepcopy(job).get("state") == "new":
                found.append(key)
        return found


class OnStore:
    """A store that threads share."""

    def __init__(self, store: DictMemoryStore) -> None:
        self.store, self.read, self.write = store, store.get_metadata, store.set_metadata
        store.multiset_metadata(CONTENT, CONTENT.values())

    def visit(self) -> None:
        with self.store.transaction():
            page = self.read("page")
            page["visits"] += 1
            self.write("page", page)

    def add(self, name: str, euros: int) -> None:
        euros += self.read(name)["euros"]
        self.write(name, {"euros": euros})

    def transfer(self, euros: int) -> None:
        with self.store.transaction():
            self.add("anna", -euros)
            self.add("bert", euros)

    def total(self) -> int:
        both = self.store.multiget_metadata(PAIR)
        return sum(each["euros"] for each in both)

    def post(self, jobs: list[str]) -> None:
        states = [{"state": "new"}] * len(jobs)
        self.store.multiset_metadata(jobs, states)

    def jobs(self) -> list[str]:
        return list(self.store.query_keys(state="new"))


class Replica:
    """A listener that keeps a copy of the store; each event must fit the ones before."""

    def __init__(self) -> None:
        self.copy: dict[str, dict[str, Any] | None] = {}
        self.findings: Findings = Counter()
        self.latest: deque[StoreModificationEvent] = deque(maxlen=3)

    def apply(self, event: StoreModificationEvent) -> None:
        before = event.previous.metadata if event.previous else None
        after = event.value.metadata if event.value else None
        fits = before == self.copy.get(event.key)
        self.findings["" if fits else "out of order"] += 1
        self.copy[event.key] = after
        self.latest.append(event)


Shared = OnDict | OnStore
#: What is wrong, and how often it was found; the empty text counts what is right.
Findings = Counter[str]


def in_threads(work: Callable[[int], Any]) -> list[Any]:
    """Call ``work(0)``, ``work(1)``, ... in a thread each; return what the calls return."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(THREADS)))


def write_and_look(write: Callable[[int], None], times: int, look: Callable[[], str]) -> Findings:
    """Write that many times in one thread, and look in the others until it has ended, and once more."""
    written = threading.Event()

    def work(number: int) -> Findings:
        findings: Findings = Counter()
        last = number == 0
        if number == 0:
            try:
                for turn in range(times):
                    write(turn)
            finally:
                written.set()
        while not last:
            last = written.is_set()
            try:
                findings[look()] += 1
            except Exception as error:
                findings[f"{type(error).__name__}: {error}"] += 1
        return findings

    return sum(in_threads(work), Counter())


def count_visits(shared: Shared) -> Findings:
    """Count visits in all threads; all of them must be there in the end."""
    in_threads(lambda number: [shared.visit() for _ in range(VISITS)])
    visits = shared.read("page")["visits"]
    return +Counter({"": visits, "lost": THREADS * VISITS - visits})


def move_money(shared: Shared) -> Findings:
    """Move all money to and fro; the sum of both accounts must always be all of it."""

    def look() -> str:
        total = shared.total()
        return "" if total == EUROS else f"{total:,} euros, not {EUROS:,}"

    return write_and_look(lambda turn: shared.transfer(-EUROS if turn % 2 else EUROS), TRANSFERS, look)


def post_jobs(shared: Shared) -> Findings:
    """Post batches of jobs; each list of the jobs must have whole batches."""

    def post(turn: int) -> None:
        shared.post([f"job/{turn}/{number}" for number in range(BATCH)])

    def look() -> str:
        return "a part of a batch" if len(shared.jobs()) % BATCH else ""

    return write_and_look(post, BATCHES, look)


#: Title, what is played, the methods of which the code is shown, what is counted.
SCENES: tuple[tuple[str, Callable[[Shared], Findings], tuple[str, ...], str], ...] = (
    ("Lost updates: all threads count visits", count_visits, ("visit",), "visits"),
    ("A torn pair: one thread moves money, the others add it up", move_money, ("transfer", "total"), "sums"),
    (
        "Iteration: one thread posts batches of jobs, the others list them",
        post_jobs,
        ("post", "jobs"),
        "lists",
    ),
)


class Screen:
    """Plain text or, on a terminal and with ``rich``, text in colour."""

    def __init__(self) -> None:
        self._rich: Any = None
        if sys.stdout.isatty():
            with suppress(ImportError):
                modules = [import_module(name) for name in ("rich", "rich.syntax", "rich.text")]
                self._rich, self._syntax, self._text = modules

    def write(self, text: str, style: str = "") -> None:
        """Print text, in a style of ``rich`` or as code."""
        if self._rich is None:
            print(text, flush=True)
        elif style == "code":
            self._rich.print(self._syntax.Syntax(text, "python", theme="ansi_dark", word_wrap=True))
        else:
            self._rich.print(self._text.Text(text, style))

    def code(self, *pieces: str) -> None:
        """Print code, one piece below the other or, where there is room, beside it."""
        parts = [piece.splitlines() for piece in pieces]
        widths = [max(map(len, part)) + 4 for part in parts]
        if sum(widths) < shutil.get_terminal_size().columns:
            rows = zip_longest(*parts, fillvalue="")
            parts = [["".join(map(str.ljust, row, widths)).rstrip() for row in rows]]
        for part in parts:
            self.write(textwrap.indent("\n".join(part), "    ") + "\n", "code")

    def judge(self, name: str, findings: Findings, counted: str) -> bool:
        """Print the findings; return whether all of them are right."""
        total, right = findings.total(), findings.pop("", 0)
        if total == right:
            self.write(f"  {name:<6}ok      {total:,} {counted}, all right", "green")
            return True
        examples = ", ".join(f"{what} ({count:,})" for what, count in findings.most_common(2))
        self.write(
            f"  {name:<6}FAILED  {total - right:,} of {total:,} {counted} wrong: {examples}", "bold red"
        )
        return False


def source_of(owner: type, methods: tuple[str, ...]) -> str:
    """Return the code of methods of a class, with its name."""
    pieces = [inspect.getsource(getattr(owner, name)) for name in methods]
    return f"# {owner.__name__}\n" + textwrap.dedent("\n".join(pieces)).rstrip()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command, which has no options."""
    parser.description = "Run four threads on a plain dict, which loses updates, and on a store."
    parser.epilog = "Exit codes: 0 the store is right, 1 it is not, 2 wrong usage, 130 interrupted."


def run(arguments: argparse.Namespace) -> int:
    """Run the demo, and return the exit code, as the epilog of the help has it."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        with DictMemoryStore(EventManager()) as store:
            return show(store, Screen())
    finally:
        sys.setswitchinterval(interval)


def show(store: DictMemoryStore, screen: Screen) -> int:
    """Show all scenes, and return the exit code."""
    replica = Replica()
    store.event_manager.connect(StoreModificationEvent, replica.apply)
    on_store = OnStore(store)
    dict_passes, store_passes = [], []
    screen.write(INTRODUCTION)
    for number, (title, play, methods, counted) in enumerate(SCENES, 1):
        screen.write(f"\n{number}. {title}\n", "bold")
        screen.code(source_of(OnDict, methods), source_of(OnStore, methods))
        for _ in range(ATTEMPTS):
            findings = play(OnDict())
            if findings.keys() - {""}:
                break
        dict_passes.append(screen.judge("dict", findings, counted))
        store_passes.append(screen.judge("store", play(on_store), counted))
    screen.write(f"\n{len(SCENES) + 1}. Events: a listener has kept a copy of the store\n", "bold")
    screen.code(source_of(Replica, ("apply",)))
    on_store.transfer(EUROS)
    store.flush()
    for event in replica.latest:
        screen.write(f"    {event!r} {dict(event.metadata)}")
    copy = {key: value for key, value in replica.copy.items() if value is not None}
    replica.findings["the copy is another"] += copy != dict(store.query())
    store_passes.append(screen.judge("store", replica.findings, "events"))
    screen.write(
        f"\nThe dict fails {dict_passes.count(False)} of {len(dict_passes)} checks, "
        f"the store {store_passes.count(False)} of {len(store_passes)}."
    )
    screen.write(READ_NEXT)
    return 0 if all(store_passes) else 1
