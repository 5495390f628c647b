"""The checks of a replay: each finds one kind of fault in what a listener got."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

from tests.event_replay.records import ROLLED_BACK, Heard, State, Written


def steps_back(heard: list[Heard]) -> list[str]:
    """Find the events that come after one of a later commit."""
    return [
        f"revision {after.revision} after {before.revision}"
        for before, after in itertools.pairwise(heard)
        if after.revision < before.revision
    ]


def split_commits(heard: list[Heard]) -> list[str]:
    """Find the commits whose events have others between them."""
    begun: set[int] = set()
    now = 0
    faults = []
    for event in heard:
        if event.revision != now and event.revision in begun:
            faults.append(f"revision {event.revision} goes on after {now}")
        now = event.revision
        begun.add(now)
    return faults


def doubled_events(heard: list[Heard]) -> list[str]:
    """Find the keys of which a commit tells more than once."""
    told = Counter((event.revision, event.key) for event in heard)
    return [
        f"{key!r} {times} times in revision {revision}"
        for (revision, key), times in told.items()
        if times > 1
    ]


def missing_revisions(heard: list[Heard], last: int) -> list[str]:
    """Find the commits that nothing tells of, and events of commits that never were."""
    told = {event.revision for event in heard}
    return [f"revision {revision}" for revision in told ^ set(range(1, last + 1))]


def broken_chains(heard: list[Heard], final: dict[str, State]) -> list[str]:
    """Replay the events; find those that do not continue the last of their key, and a wrong end."""
    replayed: dict[str, State] = {}
    faults = []
    for event in heard:
        before = replayed.get(event.key)
        if event.previous != before:
            faults.append(f"{event} comes after {before}")
        action = "delete" if event.value is None else "set" if before is None else "update"
        if event.action != action:
            faults.append(f"{event} should be {action!r}")
        if event.value is None:
            replayed.pop(event.key, None)
        else:
            replayed[event.key] = event.value
    if replayed != final:
        faults.append(f"replayed {replayed}, the store has {final}")
    return faults


def wrong_data(heard: list[Heard], written: Iterable[Written]) -> list[str]:
    """Find data and marks that were committed and not told once, and those that never were committed."""
    told: Counter[object] = Counter()
    for event in heard:
        if event.value is None:
            continue
        data, metadata = event.value
        before, metadata_before = event.previous or (b"", {})
        if data != before:
            told[data] += 1
        if "mark" in metadata and metadata["mark"] != metadata_before.get("mark"):
            told[metadata["mark"]] += 1
    committed: Counter[object] = Counter()
    for each in written:
        committed.update(each.data)
        committed.update(each.marks)
    return [f"{item!r}: committed and not told" for item in committed - told] + [
        f"{item!r}: told and not committed" for item in told - committed
    ]


def wrong_transactions(heard: list[Heard], written: Iterable[Written]) -> list[str]:
    """Find the transactions that are not told of by one event for each key that they have changed."""
    told: dict[int, list[str]] = {}
    for event in heard:
        told.setdefault(event.revision, []).append(event.key)
    return [
        f"revision {revision} has changed {keys}, told are {told.get(revision)}"
        for each in written
        for revision, keys in each.keys.items()
        if sorted(told.get(revision, [])) != sorted(keys)
    ]


def rolled_back(heard: list[Heard]) -> list[str]:
    """Find the events of what was never committed."""
    return [str(event) for event in heard if event.value and event.value[0].startswith(ROLLED_BACK)]


def faults_by_check(
    heard: list[Heard], final: dict[str, State], last: int, written: list[Written]
) -> dict[str, list[str]]:
    """Return what each check objects to."""
    return {
        "steps_back": steps_back(heard),
        "split_commits": split_commits(heard),
        "doubled_events": doubled_events(heard),
        "missing_revisions": missing_revisions(heard, last),
        "broken_chains": broken_chains(heard, final),
        "wrong_data": wrong_data(heard, written),
        "wrong_transactions": wrong_transactions(heard, written),
        "rolled_back": rolled_back(heard),
    }


def assert_no_faults(faults: dict[str, list[str]]) -> None:
    # The first few tell enough; there may be a hundred thousand.
    assert {check: found[:3] for check, found in faults.items() if found} == {}
