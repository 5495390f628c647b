"""Plain technical English: turns that must be read twice do not come back.

Each turn of the list was found in many places and has a plainer form, which the error names. The test looks
for it in comments, docstrings and messages of the sources, and in the prose of the pages, not in code.

To leave out a room or a page for now, name its path in `LATER`. Remove the path once its wording is done: the
test then keeps it so. A sentence that is right as it stands goes into `MEANT`.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Turns, as regular expressions, and what to write instead.
TURNS = {
    # personified code
    r"\bsays (what|who|whether|which|how|when)\b": "returns, names, documents, shows",
    r"\bhears? (of|about|from)\b": "is notified of",
    r"\b(is|are|be|been|being|was|were) told\b(?! to\b)": "is notified of, receives",
    r"\b(store|cache|engine|table|queue|lock|code|commit|method) (wants|knows|hears|thinks)\b": "needs, has",
    r"\b(not|never) (be )?heard\b": "not delivered",
    r"\bTell whether\b": "Return whether",
    # riddles: a clause where there is a noun
    r"\bwhat goes\b(?! (on|wrong)\b)": "the entry to evict, the content",
    r"\bwhat is due\b": "the timers or jobs whose time has come",
    r"\bwho waits longest\b": "the thread that has waited longest",
    r"\bwhoever (comes|is|takes|does|begins|makes) (next|to|it|so)\b": "the next thread, the caller",
    r"\bWhat (a|an|the) \w+ (needs|has) of\b": "the methods of, the facts of",
    r"\bif it is none\b": "if it is not a string, an index, ...",
    r"\bis no (str|string|bytes|number|list|dict|mapping|file|regular|transaction|job|class)\b": "is not a",
    # trailing, inverted, archaic
    r", too[.;:)]": "also",
    r"\bas it were\b": "nothing",
    r"\bfor ever\b": "forever",
    r"\bbut for (a|an|the|those|what|one|its|few)\b": "except",
    r"\bsurely\b": "nothing",
    r"\bby way of\b": "through",
    r"\b(lock|mutex|latch) (was |is )?(taken|given back)\b": "acquired, released",
    r"\b(left|stays) taken\b": "held, acquired",
    r"\blets? go of\b": "drop, release",
    r"\bgoes on with\b": "continue with",
    r"\b(is|was|be|been) passed over\b": "skipped",
    # words that nobody else uses for it
    r"\b(has|have|had) struck\b": "an exception has interrupted",
    r"\bbroken off\b": "interrupted",
    r"\bis crowded\b": "is full",
    r"\bkeepers?\b|\bheirs?\b|\bat the door\b": "the field's word",
}

_BEGINNING = r"\b"

#: Rooms, files and pages that have not been gone through, as paths from the root.
LATER: tuple[str, ...] = ()

#: Sentences that are meant as they stand, by a part of them.
MEANT: tuple[str, ...] = ()

#: Any turn. Most begin at the beginning of a word, which is looked for once.
_TURN = re.compile(
    "|".join(
        [
            rf"\b(?:{'|'.join(turn[2:] for turn in TURNS if turn.startswith(_BEGINNING))})",
            *(turn for turn in TURNS if not turn.startswith(_BEGINNING)),
        ]
    )
)

#: Prose comes after the prefix and the quotes of a string; `FSTRING_MIDDLE` is there from 3.12 on.
_PROSE = frozenset({tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)})


def files() -> list[str]:
    found = [
        *ROOT.glob("src/latchstore/**/*.py"),
        *ROOT.glob("src/latchstore/**/*.md"),
        *ROOT.glob("docs/**/*.md"),
        ROOT / "README.md",
    ]
    paths = sorted(path.relative_to(ROOT).as_posix() for path in found)
    return [path for path in paths if not path.startswith(LATER)]


def prose_of_source(text: str) -> Iterator[tuple[int, str]]:
    """Yield comments and strings, with the number of the first line of each."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in _PROSE:
            yield token.start[0], token.string


def prose_of_page(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines outside of code blocks."""
    is_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code:
            yield number, re.sub(r"`[^`]*`", "``", line)


def turns_in(path: str, text: str) -> list[str]:
    """Return a line for each turn in a text: file, line, the turn, what to write instead."""
    if _TURN.search(text) is None:
        return []  # as a rule: to take a source apart takes longer
    found: list[str] = []
    for first, prose in prose_of_source(text) if path.endswith(".py") else prose_of_page(text):
        for number, line in enumerate(prose.split("\n"), first):
            if _TURN.search(line) is None or any(part in line for part in MEANT):
                continue
            found += [
                f"{path}:{number}: {match[0]!r}: write: {instead}"
                for turn, instead in TURNS.items()
                if (match := re.search(turn, line)) is not None
            ]
    return found


def test_no_turn_has_come_back() -> None:
    found = [line for path in files() for line in turns_in(path, (ROOT / path).read_text(encoding="utf-8"))]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("path", "text", "lines"),
    [
        ("a.py", "x = 1  # read, too.\n", [1]),
        ("a.py", '"""Says.\n\nWaits for ever, as what goes does.\n"""\n', [3, 3]),
        ("a.py", "def f(x):\n    raise ValueError(f'the job {x} is told')\n", [2]),
        ("a.py", "keeper = for_ever = 1\n", []),
        ("a.md", "It\nis told.\n\n```\nis told\n```\nIt says how `is told` ends.\n", [2, 7]),
    ],
    ids=["comment", "docstring", "message", "names", "page"],
)
def test_turns_are_found(path: str, text: str, lines: list[int]) -> None:
    assert [int(line.split(":")[1]) for line in turns_in(path, text)] == lines


def test_what_is_left_for_later_is_there() -> None:
    assert [path for path in LATER if not (ROOT / path).exists()] == []
