"""What has moved since an earlier run, beyond the noise of the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measure import markdown

#: What two medians may differ by, even if their rounds did not: machines change their speed between runs.
_NOISE = 0.10


def moved(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return a table of the figures that have moved by more than their spreads and a tenth.

    Parameters
    ----------
    old, new : mapping
        What ``--json`` has written.
    """
    before = {(each["question"], each["what"]): each for each in old["figures"]}
    after = {(each["question"], each["what"]): each for each in new["figures"]}
    rows = []
    for key in before.keys() & after.keys():
        was, now = before[key], after[key]
        change = now["median"] / was["median"] - 1 if was["median"] else 0.0
        if abs(change) > was["spread"] + now["spread"] + _NOISE:
            rows.append((abs(change), [*key, _shown(was), _shown(now), f"{change:+.0%}"]))
    lines = [f"Compared with {old['machine']}: {len(before.keys() & after.keys())} figures in both."]
    if before.keys() - after.keys():
        lines.append(f"Only in the old run: {_named(before.keys() - after.keys())}.")
    if after.keys() - before.keys():
        lines.append(f"Only in this run: {_named(after.keys() - before.keys())}.")
    if not rows:
        return "\n".join([*lines, "Nothing has moved beyond the noise."])
    rows.sort(key=lambda row: -row[0])
    return "\n".join(
        [*lines, "", markdown(["question", "figure", "before", "now", "change"], [row for _, row in rows])]
    )


def _shown(figure: Mapping[str, Any]) -> str:
    return f"{figure['median']:,.4g} {figure['unit']} +-{figure['spread'] / 2:.0%}"


def _named(keys: set[tuple[str, str]]) -> str:
    names: Sequence[str] = sorted(f"{what} ({question})" for question, what in keys)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return "; ".join(names[:3]) + more
