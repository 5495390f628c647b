"""The command ``inspect``: shows the contents of a store, without changing anything."""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Callable
from typing import Any

from latchstore.inspecting import report
from latchstore.inspecting.errors import ended
from latchstore.inspecting.sources import Source, SourceError, open_source
from latchstore.inspecting.tables import Table, duration_text, show, size_text, time_text
from latchstore.inspecting.terms import SYNTAX, parsed_terms
from latchstore.printable import complain, printable

#: The exit code if there is no such key.
NOT_FOUND = 1

#: Default maximum of listed entries, and of displayed bytes of one.
_LIMIT, _BYTES = 100, 512

#: Maximum number of reads of a file that others change meanwhile.
_TRIES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "Show the contents of a store: an overview by default, or the entries that match, or one of them. "
        "Nothing is changed: no file, no time of a file, and nothing on a server. Nothing is unpickled."
    )
    parser.epilog = f"A TERM is {SYNTAX}.".replace("%", "%%") + (
        " Exit codes: 0, 1 if there is no such key, 2 if the store cannot be read."
    )
    parser.add_argument(
        "target",
        metavar="STORE",
        help="a file of DictMemoryStore.save or of a SqliteStore; the URL of a server (redis://, rediss://, "
        "unix://); or module:name of a store, a cache, or a function that makes one",
    )
    parser.add_argument("--namespace", metavar="NAME", help="namespace of the store on the server")
    parser.add_argument("--keys", metavar="GLOB", help="list entries whose keys match: *, ?, [ab], [!ab]")
    parser.add_argument(
        "--where",
        metavar="TERM",
        action="append",
        default=[],
        help="list entries by a metadata item, see below; may be given several times",
    )
    parser.add_argument(
        "--order-by", metavar="ITEM", help="key (default), created, modified, revision, or a metadata item"
    )
    parser.add_argument("--descending", action="store_true", help="in descending order")
    parser.add_argument(
        "--limit", type=_count, metavar="N", help=f"maximum number of entries, 0 for all; default: {_LIMIT}"
    )
    parser.add_argument("--key", metavar="KEY", help="show one entry: metadata, times, revision, data")
    parser.add_argument(
        "--bytes",
        type=_count,
        default=_BYTES,
        metavar="N",
        help="maximum bytes of data to show, unless it is JSON; default: %(default)s",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run ``inspect``; return the exit code."""
    return ended("inspect", arguments.target, lambda: _run(arguments))


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return count


def _run(arguments: argparse.Namespace) -> int:
    listed = arguments.keys is not None or arguments.where or arguments.order_by is not None
    listed = listed or arguments.descending or arguments.limit is not None
    if arguments.key is not None and listed:
        raise ValueError("--key shows one entry, and cannot be combined with the options that list several")
    terms = parsed_terms(arguments.where)
    limit = _LIMIT if arguments.limit is None else arguments.limit or None
    make: Callable[[Source], dict[str, Any]]
    text: Callable[[dict[str, Any]], None]
    if arguments.key is not None:
        make, text = (lambda source: report.entry(source, arguments.key, arguments.bytes)), _show_entry
    elif listed:
        text = _show_listing

        def make(source: Source) -> dict[str, Any]:
            order = arguments.order_by, arguments.descending
            return report.listing(source, arguments.keys, terms, *order, limit)
    else:
        make, text = report.overview, _show_overview
    try:
        found = _read(arguments, make)
    except KeyError:
        if arguments.key is None:
            raise
        complain("inspect", f"{arguments.target} has no key {arguments.key!r}")
        return NOT_FOUND
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        text(found)
    sys.stdout.flush()
    return 0


def _read(arguments: argparse.Namespace, make: Callable[[Source], dict[str, Any]]) -> dict[str, Any]:
    """Open the store and read from it; read again if the result is outdated."""
    for _ in range(_TRIES):
        source = open_source(arguments.target, arguments.namespace)
        try:
            found = make(source)
            if not source.is_outdated:
                return found
        except Exception:
            if not source.is_outdated:
                raise
        finally:
            source.close()
    raise SourceError(f"{arguments.target} is being changed by another program; try again")


# -- text ---------------------------------------------------------------------------------------------


def _show_overview(found: dict[str, Any]) -> None:
    history = found["history_from"]
    facts = [
        ("engine", found["engine"]),
        ("keys", f"{found['keys']:,}"),
        ("data", size_text(found["data_bytes"])),
        ("file", size_text(found["file_bytes"])),
        ("revision", f"{found['revision']:,}" if found["revision"] is not None else None),
        ("history", None if history is None else f"from revision {history:,} on"),
        ("indexes", ", ".join(found["indexes"]) or None),
    ]
    caches = [
        (
            each["prefix"] or "(all keys)",
            each["entries"],
            size_text(each["bytes"]),
            duration_text(each["idle"]),
            ", ".join(f"{cause} {number:,}" for cause, number in each["evictions"].items()) or None,
        )
        for each in found["caches"]
    ]
    queues = [
        (
            each["name"],
            each["waiting"],
            each["delayed"],
            each["leased"],
            each["dead"],
            duration_text(each["oldest_waiting"]),
        )
        for each in found["queues"]
    ]
    show(
        [
            Table(found["place"], ("", ""), [fact for fact in facts if fact[1] is not None]),
            Table("Caches", ("keys", "entries", "weight", "idle time", "evictions"), caches),
            Table("Queues", ("name", "waiting", "delayed", "leased", "dead", "oldest waiting"), queues),
            Table(
                "Largest keys",
                ("key", "size"),
                [(each["key"], size_text(each["bytes"])) for each in found["largest"]],
            ),
        ]
    )


def _show_listing(found: dict[str, Any]) -> None:
    rows = [
        (
            each["key"],
            size_text(each["bytes"]),
            each["revision"],
            time_text(each["modified"]),
            ", ".join(f"{name}={_short(item)}" for name, item in each["metadata"].items()),
        )
        for each in found["entries"]
    ]
    if not rows:
        print("no entries")
        return
    show([Table("", ("key", "size", "revision", "modified", "metadata"), rows)])
    if found["more"]:
        print(f"... and more than these {len(rows)} entries: raise --limit", file=sys.stderr)


def _short(item: Any) -> str:
    return item if isinstance(item, str) else json.dumps(item)


def _show_entry(found: dict[str, Any]) -> None:
    facts = [
        ("size", f"{found['bytes']:,} bytes"),
        ("revision", f"{found['revision']:,}" if found["revision"] is not None else None),
        ("created", time_text(found["created"])),
        ("modified", time_text(found["modified"])),
        ("content", found["kind"]),
    ]
    metadata = [(name, json.dumps(item)) for name, item in found["metadata"].items()]
    show(
        [
            Table(found["key"], ("", ""), [fact for fact in facts if fact[1] is not None]),
            Table("Metadata", ("", ""), metadata),
        ]
    )
    print()
    if "value" in found:
        print(_lines(json.dumps(found["value"], indent=2, ensure_ascii=False)))
    elif "text" in found:
        print(_lines(found["text"]))
    else:
        print(hexdump(base64.b64decode(found["base64"])))
    if found.get("left_out"):
        print(f"... {found['left_out']:,} bytes more: raise --bytes", file=sys.stderr)


def _lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.splitlines())


def hexdump(data: bytes) -> str:
    """Return data in the format of ``hexdump -C``."""
    lines = []
    for start in range(0, len(data), 16):
        part = data[start : start + 16]
        numbers = part.hex(" ")
        shown = "".join(chr(each) if 32 <= each < 127 else "." for each in part)
        lines.append(f"{start:08x}  {numbers:<47}  |{shown}|")
    return "\n".join(lines)
