"""A trace that is run again and again: the same requests each time, and when each key is requested next."""

from __future__ import annotations

import itertools
import random
import tempfile
from typing import Any

import pytest

from latchstore.cache_simulation import recording
from latchstore.cache_simulation.recording import NEVER, Recording


@pytest.fixture(params=[1, 3, 1_000])
def _block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "BLOCK", request.param)


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("in_memory", [1, 1_000_000])
@pytest.mark.parametrize("warm_up", [0, 1, 20, 500])
def test_requests_and_next_times(warm_up: int, in_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "IN_MEMORY", in_memory)
    requested = [str(random.Random(seed).randrange(30)) for seed in range(100)]
    expected = [
        next((later for later in range(time + 1, 100) if requested[later] == requested[time]), NEVER)
        for time in range(100)
    ]
    with Recording(requested, warm_up) as trace:
        assert trace.requests == sum(trace.lengths) == 100
        assert sorted(trace.keys) == sorted(set(requested))
        assert warm_up in (0, 500) or warm_up in itertools.accumulate(trace.lengths)
        for _ in range(2):
            blocks = list(trace.blocks())
            assert [len(block) for block in blocks] == list(trace.lengths)
            assert list(itertools.chain(*blocks)) == requested
            times = list(trace.next_times())
            assert [len(block) for block in times] == list(trace.lengths)
            assert list(itertools.chain(*times)) == expected


def test_what_is_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "BLOCK", 4)
    told: list[int] = []
    Recording("abcdefghij", progress=told.append).close()
    assert told == [4, 8, 10]


def test_no_requests() -> None:
    with Recording([]) as trace:
        assert (trace.requests, list(trace.keys), list(trace.blocks())) == (0, [], [])
        assert list(trace.next_times()) == []


def test_a_trace_that_fails_leaves_no_file_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    make = tempfile.SpooledTemporaryFile

    def remembered(*arguments: Any, **options: Any) -> Any:
        made.append(make(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", remembered)
    with pytest.raises(ZeroDivisionError):
        Recording(str(1 // number) for number in (1, 0))
    with Recording("ab") as trace:
        list(trace.next_times())
    assert [file.closed for file in made] == [True, True, True]
