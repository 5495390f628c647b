"""A reader for EDN as recorded histories use it: https://github.com/edn-format/edn.

Maps become dicts, with keyword keys without the colon; vectors, lists and sets become lists; tags are
ignored.

No library: edn_format 0.8.0 takes twice as long for the key-value logs of Porcupine, does not return the line
of a record, and depends on PLY, which has no more releases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any


class EdnError(ValueError):
    """A text is not EDN; the message begins with the position."""


class Keyword(str):
    """A keyword, without its colon."""

    __slots__ = ()


class Map(dict[Any, Any]):
    """A map, with the number of its last line."""

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
    """Yield each value of a text.

    Raises
    ------
    EdnError
        If the text is not EDN.
    """
    # Open brackets: the bracket, its line, its values.
    stack: list[tuple[str, int, list[Any]]] = []
    line, place = 1, 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise EdnError(f", line {line}: {text[place : place + 20]!r} is not EDN")
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
        raise EdnError(f", line {line}: {word[:60]} is not a string: {error}") from error
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
