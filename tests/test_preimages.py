"""The layers behind snapshots: what is kept, for whom, and that readers need no lock at any point of it.

The last tests stop a reader between any two of its steps and let a writer do all that it may do there, and
the other way round, and see that the reader still finds the moment of its snapshot.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from latchstore.contract.values import Change, Entry
from latchstore.engine.preimages import Layer, LayerView, Preimages, changed_since, entries_at, entry_at


def entry(data: bytes = b"") -> Entry:
    made = Entry()
    made.data = data
    return made


class Store:
    """A table and its layers, without locks: commits as `Table.finish` makes them."""

    def __init__(self, entries: dict[str, Entry] | None = None) -> None:
        self.entries: dict[str, Entry] = {} if entries is None else entries
        self.garbage: deque[object] = deque()
        self.closed = 0
        self.preimages = Preimages(self.entries, self.garbage, self._note_close)
        self.views: list[tuple[Layer, LayerView]] = []
        self.revision = 0

    def _note_close(self) -> None:
        self.closed += 1

    def commit(self, **new: Entry | None) -> None:
        changes: list[Change] = [(key, self.entries.get(key), value) for key, value in new.items()]
        self.preimages.record(changes)
        self.revision += 1
        for key, value in new.items():
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value

    def open(self) -> tuple[Layer, dict[str, Entry]]:
        view = LayerView(self.preimages)
        self.preimages.open(self.revision, view)
        layer = self.preimages.layers[-1]
        self.views.append((layer, view))
        return layer, dict(self.entries)

    def close(self, layer: Layer) -> None:
        """Close one snapshot of a layer."""
        self._taken(layer).close()

    def drop(self, layer: Layer) -> None:
        """Forget one snapshot of a layer."""
        self._taken(layer)

    def _taken(self, layer: Layer) -> LayerView:
        return self.views.pop([each for each, _ in self.views].index(layer))[1]


@pytest.fixture
def store() -> Store:
    store = Store()
    store.commit(a=entry(b"a"), b=entry(b"b"))
    return store


def test_nothing_is_kept_while_no_snapshot_is_open(store: Store) -> None:
    store.commit(a=entry())
    assert store.preimages.layers == []
    assert store.preimages.facts() == {
        "snapshots": 0,
        "oldest_snapshot": 0.0,
        "pinned_entries": 0,
        "pinned_bytes": 0,
    }


def test_opening_adds_one_empty_layer_for_each_moment(store: Store) -> None:
    first, _ = store.open()
    same, _ = store.open()
    assert same is first
    assert len(first.views) == 2
    store.commit(a=entry())
    second, _ = store.open()
    assert second is not first
    assert (first.newer, second.newer) == (second, None)
    assert (first.revision, second.revision) == (1, 2)
    assert store.preimages.layers == [first, second]
    assert (list(first.entries), second.entries) == (["a"], {})


def test_a_commit_costs_its_own_keys_once(store: Store) -> None:
    layer, before = store.open()
    store.commit(a=entry(b"1"))
    store.commit(a=entry(b"2"), c=entry())
    store.commit(c=None)
    assert layer.entries == {"a": before["a"], "c": None}
    assert layer.entries["a"] is before["a"]
    assert changed_since(layer) == {"a": before["a"], "c": None}


def test_only_the_newest_layer_is_filled(store: Store) -> None:
    first, _ = store.open()
    store.commit(a=entry(b"1"))
    second, at_second = store.open()
    store.commit(a=entry(b"2"), b=None)
    assert list(first.entries) == ["a"]
    assert second.entries == at_second
    # The first layer's own entry goes before the second's: it is the older one.
    assert entry_at(store.entries, first, "a") is first.entries["a"]
    assert entry_at(store.entries, first, "b") is second.entries["b"]


def test_a_commit_that_is_broken_off_may_leave_its_preimages(store: Store) -> None:
    """`Table.finish` records first, and again when it is done again."""
    layer, before = store.open()
    store.preimages.record([("a", before["a"], entry()), ("new", None, entry())])
    assert entries_at(store.entries, layer) == before
    store.commit(a=entry(b"1"), new=entry())
    assert entries_at(store.entries, layer) == before
    assert entry_at(store.entries, layer, "new") is None


NEXT_WITH_THE_LOCK: dict[str, Callable[[Store], object]] = {
    "open": lambda store: store.open(),
    "record": lambda store: store.preimages.record([]),
    "facts": lambda store: store.preimages.facts(),
    "forget_closed": lambda store: store.preimages.forget_closed(),
}


@pytest.mark.parametrize("next_one", NEXT_WITH_THE_LOCK)
def test_closing_needs_no_lock_and_is_done_by_the_next_who_has_it(store: Store, next_one: str) -> None:
    layer, _ = store.open()
    store.commit(a=entry(b"1"))
    store.close(layer)
    assert store.preimages.layers == [layer], "not yet"
    NEXT_WITH_THE_LOCK[next_one](store)
    assert layer not in store.preimages.layers


def test_a_snapshot_that_is_only_dropped_or_closed_twice_is_closed(store: Store) -> None:
    dropped, _ = store.open()
    kept, _ = store.open()
    assert dropped is kept
    store.commit(a=entry(b"1"))
    store.drop(dropped)
    store.preimages.forget_closed()
    assert store.preimages.layers == [kept]
    view = store._taken(kept)
    view.close()
    view.close()
    assert store.closed == 1
    del view
    store.preimages.forget_closed()
    assert store.preimages.layers == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_a_layer_that_goes_leaves_to_older_ones_what_they_need(store: Store, order: tuple[int, ...]) -> None:
    kept: dict[int, tuple[Layer, dict[str, Entry]]] = {}
    for number in range(3):
        kept[number] = store.open()
        store.commit(a=entry(b"%d" % number), **{f"key{number}": entry()})
    for number in order:
        layer, _ = kept.pop(number)
        store.close(layer)
        store.preimages.forget_closed()
        for other, before in kept.values():
            assert entries_at(store.entries, other) == before
        assert store.preimages.layers == [other for other, _ in kept.values()]
    assert store.preimages.facts()["pinned_entries"] == 0


def test_the_oldest_entry_of_a_key_wins_when_layers_are_joined(store: Store) -> None:
    older, before = store.open()
    store.commit(a=entry(b"1"))
    newer, _ = store.open()
    store.commit(a=entry(b"2"), b=None)
    store.close(newer)
    store.preimages.forget_closed()
    assert older.newer is None
    assert older.entries == {"a": before["a"], "b": before["b"]}
    assert older.entries["a"] is before["a"]


class CountedKey(str):
    """A key that counts how often a dict is asked for it by its hash."""

    asked = 0

    def __hash__(self) -> int:
        CountedKey.asked += 1
        return super().__hash__()

    __eq__ = str.__eq__


def test_closing_many_costs_little_in_whatever_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted are entries that are moved, and layers that are looked at to find the one that goes."""
    looked_at: list[object] = []

    def note(layer: Layer, other: object) -> bool:
        looked_at.append(other)
        return layer is other

    def cost_of(order: Callable[[list[Layer]], object]) -> float:
        store = Store()
        layers = []
        for number in range(1_000):
            layers.append(store.open()[0])
            store.commit(**{CountedKey(number): entry()})
        views = dict(store.views)
        order(layers)
        CountedKey.asked = 0
        looked_at.clear()
        for layer in layers:
            views[layer].close()
            store.preimages.forget_closed()
        assert store.preimages.layers == []
        return (CountedKey.asked + len(looked_at)) / len(layers)

    monkeypatch.setattr(Layer, "__eq__", note)
    assert cost_of(lambda layers: None) < 10
    assert cost_of(lambda layers: layers.reverse()) < 10
    assert cost_of(random.Random(1).shuffle) < 10


# -- a reader that is stopped anywhere ---------------------------------------------------------------------


class SteppedDict(dict[str, Any]):
    """A dict that lets somebody else run before each thing that a reader asks of it."""

    between: Callable[[], None] = staticmethod(lambda: None)

    def get(self, key: str, default: Any = None, /) -> Any:
        self.between()
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.between()
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self.between()
        return super().__getitem__(key)

    def copy(self) -> Any:
        self.between()
        return dict(self)

    def setdefault(self, key: str, default: Any = None, /) -> Any:
        self.between()
        kept = super().setdefault(key, default)
        self.between()
        return kept

    def update(self, other: Any) -> None:  # type: ignore[override]
        self.between()
        for key, value in other.items():
            super().update({key: value})
            self.between()


class SteppedLayer(Layer):
    """A layer that does the same before and after its link is read, or its entries are exchanged."""

    __slots__ = ("_entries", "_link", "between")

    def __init__(self, revision: int) -> None:
        self.between: Callable[[], None] = lambda: None
        self._link: Layer | None = None
        self._entries: dict[str, Entry | None] = {}
        super().__init__(revision)
        self.entries = SteppedDict()

    @property
    def entries(self) -> dict[str, Entry | None]:
        return self._entries

    @entries.setter
    def entries(self, entries: dict[str, Entry | None]) -> None:
        self.between()
        self._entries = entries
        self.between()

    @property
    def newer(self) -> Layer | None:
        self.between()
        link = self._link
        self.between()
        return link

    @newer.setter
    def newer(self, layer: Layer | None) -> None:
        self.between()
        self._link = layer
        self.between()


class Stepper:
    """Runs a writer's steps at one chosen place among a reader's."""

    def __init__(self, place: int, steps: Callable[[], None]) -> None:
        self.place = place
        self.steps: Callable[[], None] | None = steps
        self.passed = 0
        self.on = False

    def __call__(self) -> None:
        if not self.on or self.steps is None:
            return
        self.passed += 1
        if self.passed > self.place:
            # What the steps themselves ask of the dicts is not stopped.
            steps, self.steps = self.steps, None
            steps()


def stepped_store() -> Store:
    store = Store(SteppedDict())
    store.commit(a=entry(b"a"), b=entry(b"b"), gone=entry())
    return store


def layer_of(store: Store, stepper: Stepper) -> Layer:
    layer, _ = store.open()
    assert isinstance(layer, SteppedLayer)
    layer.between = stepper
    layer.entries.between = stepper  # type: ignore[attr-defined]
    return layer


def close(store: Store, *layers: Layer) -> None:
    for layer in layers:
        store.close(layer)
        store.preimages.forget_closed()


def commit(store: Store) -> None:
    store.commit(a=entry(b"new"), b=None, gone=entry(b"again"), created=entry())


def commit_and_close(store: Store, *layers: Layer) -> None:
    commit(store)
    close(store, *layers)


def close_and_commit(store: Store, *layers: Layer) -> None:
    close(store, *layers)
    commit(store)


def open_commit_close(store: Store, *layers: Layer) -> None:
    store.open()
    commit_and_close(store, *layers)


#: What a writer does while the reader of the oldest of three snapshots is stopped.
WRITERS: dict[str, Callable[[Store, Layer, Layer], None]] = {
    "commit": lambda store, middle, newest: commit(store),
    "close the next": lambda store, middle, newest: close(store, middle),
    "close the newest": lambda store, middle, newest: close(store, newest),
    "close both": lambda store, middle, newest: close(store, middle, newest),
    "close both, newest first": lambda store, middle, newest: close(store, newest, middle),
    "commit, close both": lambda store, middle, newest: commit_and_close(store, middle, newest),
    "close the newest, commit": lambda store, middle, newest: close_and_commit(store, newest),
    "open, commit, close the next": lambda store, middle, newest: open_commit_close(store, middle),
}

Reader = Callable[[Store, Layer], Mapping[str, Entry | None]]


def reader_of(key: str) -> Reader:
    return lambda store, layer: {key: entry_at(store.entries, layer, key)}


READERS: dict[str, Reader] = {"entries_at": lambda store, layer: entries_at(store.entries, layer)}
READERS |= {f"entry_at {key}": reader_of(key) for key in ("a", "b", "gone", "created", "between")}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_stopped_at_any_place(reader: str, writer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latchstore.engine.preimages.Layer", SteppedLayer)
    for place in range(40):
        store = stepped_store()
        layers: list[Layer] = []
        stepper = Stepper(place, lambda store=store, layers=layers: WRITERS[writer](store, *layers[1:]))  # type: ignore[misc]
        before = dict(store.entries)
        layers.append(layer_of(store, stepper))
        store.commit(a=entry(b"1"), gone=None)
        layers.append(layer_of(store, stepper))
        store.commit(a=entry(b"2"), b=entry(b"2"), between=entry())
        layers.append(layer_of(store, stepper))
        store.commit(b=entry(b"3"))
        store.entries.between = stepper  # type: ignore[attr-defined]
        stepper.on = True
        found = READERS[reader](store, layers[0])
        stepper.on = False
        for key, held in found.items():
            assert held is before.get(key), (key, place)
        if reader == "entries_at":
            assert found.keys() == before.keys()
        if stepper.steps is not None:
            break  # there is no such place any more
    else:
        raise AssertionError("the reader does not come to an end")
    assert place >= 4, "the reader was stopped at several places"


@pytest.mark.parametrize("writer", WRITERS)
def test_readers_while_a_writer_is_stopped_at_any_place(writer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latchstore.engine.preimages.Layer", SteppedLayer)
    store = stepped_store()
    views: list[tuple[Layer, dict[str, Entry]]] = []
    places = 0
    reading = False

    def read_all() -> None:
        nonlocal places, reading
        if reading:
            return
        reading = True  # what the reader asks of the dicts stops nobody
        places += 1
        for layer, before in views:
            if layer in store.preimages.layers and layer.views:
                assert entries_at(store.entries, layer) == before
                for key in ("a", "b", "gone", "created", "between"):
                    assert entry_at(store.entries, layer, key) is before.get(key), (key, places)
        reading = False

    for change in (
        {"a": entry(b"1"), "gone": None},
        {"a": entry(b"2"), "between": entry()},
        {"b": entry(b"3")},
    ):
        layer, before = store.open()
        views.append((layer, before))
        assert isinstance(layer, SteppedLayer)
        layer.between = read_all
        layer.entries.between = read_all  # type: ignore[attr-defined]
        store.commit(**change)
    places = 0
    WRITERS[writer](store, *(layer for layer, _ in views[1:]))
    read_all()
    assert places > 1, "the writer was stopped"
