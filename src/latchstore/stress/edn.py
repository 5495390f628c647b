"""A reader of EDN, as far as recorded histories have it: https://github.com/edn-format/edn.

Maps are dicts, whose keys are without the colon if they are keywords; vectors, lists and sets are lists; tags
are passed over.

No library: edn_format 0.8.0 takes twice as long for the key-value logs of Porcupine, does not tell in which
line a record is, and stands on PLY, which has no more releases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any


class EdnError(ValueError):
    """A text is no EDN; the message begins with where."""


class Keyword(str):
    """A name with a colon before it; the colon is left out."""

    __slots__ = ()


class Map(dict[Any, Any]):
    """A map, with the line that it ends in."""

    __slots__ = ("line",)

    line: int


_TOKEN = re.compile(
    r"""(?P<space>[\s,]+|;[^\n]*)
    |(?P<open>\#\{|[\[({])
    |(?P<close>[\])}])
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<tag>\#[\w./:-]+)
    |(?P<atom>[^\s,;"\[\](){}\#]+)""",
    re.VERBOSE | re.DOTALL,
)

_CLOSING = {"[": "]", "(": ")", "{": "}", "#{": "}"}
_NAMES = {"nil": None, "true": True, "false": False}


def read_edn(text: str) -> Iterator[Any]:
    """Return each value of a text.

    Raises
    ------
    EdnError
        If it is no EDN.
    """
    # What was opened and is not closed: its sign, its line, its values.
    stack: list[tuple[str, int, list[Any]]] = []
    line, place = 1, 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise EdnError(f", line {line}: {text[place : place + 20]!r} is no EDN")
        place = token.end()
        word = token.group()
        match token.lastgroup:
            case "space" | "tag":
                line += word.count("\n")
                continue
            case "open":
                stack.append((word, line, []))
                continue
            case "close":
                value = _closed(stack, word, line)
            case "string":
                value = _string(word, line)
                line += word.count("\n")
            case _:
                value = _atom(word)
        if stack:
            stack[-1][2].append(value)
        else:
            yield value
    if stack:
        raise EdnError(f", line {stack[-1][1]}: {stack[-1][0]!r} is never closed")


def _closed(stack: list[tuple[str, int, list[Any]]], word: str, line: int) -> Any:
    if not stack or _CLOSING[stack[-1][0]] != word:
        raise EdnError(f", line {line}: {word!r} closes nothing")
    sign, _, values = stack.pop()
    if sign != "{":
        return values
    if len(values) % 2:
        raise EdnError(f", line {line}: a key of a map has no value")
    try:
        value = Map(zip(values[::2], values[1::2], strict=True))
    except TypeError as error:
        raise EdnError(f", line {line}: a key of a map must be hashable: {error}") from error
    value.line = line
    return value


def _string(word: str, line: int) -> str:
    try:
        text: str = json.loads(word, strict=False)
    except ValueError as error:
        raise EdnError(f", line {line}: {word[:60]} is no string: {error}") from error
    return text


def _atom(word: str) -> Any:
    if word in _NAMES:
        return _NAMES[word]
    if word.startswith(":"):
        return Keyword(word[1:])
    for number in (int, float):
        try:
            return number(word.rstrip("NM"))
        except ValueError:
            continue
    return word
