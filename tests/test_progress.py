"""Progress bars follow the streams that a store reads, and none is left behind."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
import tqdm

import latchstore
from latchstore import DictMemoryStore, EventManager, ProgressBars, StoreError
from latchstore.contract.events import StoreProgressEvent, StoreProgressManager, StoreProgressStartEvent


class Screen(io.StringIO):
    """What the bars are drawn on; tqdm moves to a line's beginning for each picture."""

    def pictures(self) -> list[str]:
        return [line.strip() for line in self.getvalue().split("\r") if line.strip()]


class BrokenStream(io.RawIOBase):
    """Gives one block, then fails."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, size: int = -1) -> bytes:
        self.reads += 1
        if self.reads > 1:
            raise OSError("the line is dead")
        return bytes(100)


@pytest.fixture
def store() -> DictMemoryStore:
    return DictMemoryStore(EventManager())


@pytest.fixture
def open_bars(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that has the bars of tqdm which were made and not closed."""
    made: list[object] = []

    class Bar(tqdm.tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

        def close(self) -> None:
            super().close()
            if self in made:
                made.remove(self)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    return made


def bars(store: DictMemoryStore, screen: Screen) -> ProgressBars:
    # mininterval: each step is drawn, however fast it comes.
    return latchstore.progress_bars(store, file=screen, mininterval=0, ascii=True)


def test_a_bar_goes_from_the_beginning_of_a_stream_to_its_end(store: DictMemoryStore) -> None:
    screen = Screen()
    with store, bars(store, screen):
        store.set_data("film", io.BytesIO(bytes(1_000)), 100)
        store.flush()
    pictures = screen.pictures()
    assert all(picture.startswith("Storing 'film'") for picture in pictures)
    assert "0.00B" in pictures[0]
    assert "1.00kB" in pictures[-1]
    assert any("500B" in picture for picture in pictures)
    assert store.to_bytes("film") == bytes(1_000)


def test_a_value_has_a_known_length(store: DictMemoryStore) -> None:
    screen = Screen()
    other = DictMemoryStore(EventManager())
    other.from_bytes("film", bytes(1_000))
    with store, bars(store, screen):
        store.set("film", other.get("film"), 250)
        store.flush()
    assert any("100%" in picture and "1.00k/1.00k" in picture for picture in screen.pictures())


def test_a_stream_that_fails_is_shown_to_have_failed(store: DictMemoryStore, open_bars: list[object]) -> None:
    screen = Screen()
    with store, bars(store, screen):
        with pytest.raises(OSError, match="the line is dead"):
            store.set_data("call", BrokenStream(), 100)
        store.flush()
        assert open_bars == []
    assert any("the line is dead (exception)" in picture for picture in screen.pictures())


def test_bars_of_another_store_are_not_shown(store: DictMemoryStore) -> None:
    screen = Screen()
    other = DictMemoryStore(store.event_manager)
    with store, other, bars(store, screen):
        other.set_data("film", io.BytesIO(bytes(1_000)), 100)
        other.flush()
    assert screen.getvalue() == ""


def test_after_the_block_nobody_listens_and_no_bar_is_open(
    store: DictMemoryStore, open_bars: list[object]
) -> None:
    screen = Screen()
    with store:
        with bars(store, screen):
            # An operation that begins in the block and does not end in it.
            progress = StoreProgressManager(
                store.event_manager, source=store, steps=1_000, message="film", key="film", metadata={}
            )
            progress.__enter__()
            assert len(open_bars) == 1
        assert open_bars == []
        assert not store.event_manager.has_listeners(StoreProgressEvent)
        progress.__exit__(None, None, None)


def test_a_bar_that_is_opened_as_the_block_ends_is_closed(
    store: DictMemoryStore, open_bars: list[object]
) -> None:
    screen = Screen()
    with bars(store, screen):
        (hear,) = store.event_manager.get_listeners(StoreProgressStartEvent(store))
    started: list[Any] = []
    store.event_manager.connect(StoreProgressEvent, started.append)
    with store:
        store.set_data("film", io.BytesIO(bytes(100)), 100)
        store.flush()
    hear(started[0])  # the event was on its way when the block ended
    assert screen.pictures()
    assert open_bars == []
    hear(started[1])


def test_each_block_needs_its_own(store: DictMemoryStore) -> None:
    with store, bars(store, Screen()) as shown, pytest.raises(StoreError, match="in use"), shown:
        pass


def test_without_tqdm_it_says_what_to_install(
    store: DictMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"pip install 'latchstore\[progress\]'"):
        latchstore.progress_bars(store)


def test_it_wants_a_store() -> None:
    with pytest.raises(TypeError, match="store must be a store, got dict"):
        latchstore.progress_bars({})  # type: ignore[arg-type]
