"""What do open snapshots cost those who write, and what do they keep in memory?

A store of 10,000 keys is written to, each of 1,000 keys over and over, while 0 to 100 snapshots are open:
opened one after the other with a commit in between, so that each is of another instant. Then a key is read
from the oldest.
"""

from __future__ import annotations

from benchmarks.measure import Answer, Chart, Subject, figures_of, interleaved, markdown
from benchmarks.operations import data_of, fill, key_of, our_store

KEYS = 10_000
WRITTEN = 1_000
OPEN = (0, 1, 10, 100)


def run(quick: bool = False) -> Answer:
    """Measure; return the answer; there are no limits here."""
    keys = [key_of(number) for number in range(WRITTEN)]
    subjects, stores = {}, {}
    for count in OPEN:
        store = fill(our_store(), KEYS)
        snapshots = []
        for number in range(count):
            snapshots.append(store.snapshot())
            store.from_bytes(keys[number % WRITTEN], b"between")
        stores[count] = store, snapshots
        names = {"keys": keys, "store": store, "data": data_of(0)}
        write = "for key in keys: store.from_bytes(key, data)"
        subjects[f"from_bytes, {count} open"] = Subject(write, WRITTEN, **names)
        view = snapshots[0] if snapshots else store
        read = "for key in keys: view.to_bytes(key)"
        subjects[f"to_bytes of the oldest, {count} open"] = Subject(read, WRITTEN, view=view, keys=keys)
    timings = interleaved(subjects, 3 if quick else 30)
    kinds = ("from_bytes", "to_bytes of the oldest")
    rows = []
    for count, (store, _) in stores.items():
        info = store.info()
        times = [f"{timings[f'{kind}, {count} open'].median:,.0f}" for kind in kinds]
        rows.append([f"{count}", *times, f"{info['pinned_entries']:,}", f"{info['pinned_bytes']:,}"])
    for store, snapshots in stores.values():
        for snapshot in snapshots:
            snapshot.close()
        store.close()
    table = markdown(
        ["open snapshots", *(f"{kind}, ns" for kind in kinds), "entries kept", "bytes kept"], rows
    )
    lines = {
        kind: [(max(count, 0.5), timings[f"{kind}, {count} open"].median) for count in OPEN] for kind in kinds
    }
    chart = Chart(
        "snapshots", "Cost of open snapshots (0 is drawn at 0.5)", "open snapshots", "nanoseconds", lines
    )
    return Answer(table, (), figures_of(timings), [chart])
