"""A reader for EDN as recorded histories use it: https://github.com/edn-format/edn.

Maps become dicts, with keyword keys without the colon; vectors and lists become lists, sets frozensets; tags
are ignored. Within sets and keys of maps, which must be hashable, lists are tuples.

No library: edn_format 0.8.0 takes twice as long for the key-value logs of Porcupine, does not return the line
of a record, and depends on PLY, which has no more releases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator
from math import inf, nan
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
    |(?P<discard>\#_)
    |(?P<number>\#\#[\w-]+)
    |(?P<tag>\#[\w.+*!?$%&=</>:'-]+)
    |(?P<atom>[^\s,;"\[\](){}\#][^\s,;"\[\](){}]*)""",
    re.VERBOSE | re.DOTALL,
)

_CLOSING = {"[": "]", "(": ")", "{": "}", "#{": "}"}
_NAMES = {"nil": None, "true": True, "false": False}
_NUMBERS = {"##Inf": inf, "##-Inf": -inf, "##NaN": nan}


def read_edn(text: str) -> Iterator[Any]:
    """Yield each value of a text.

    Raises
    ------
    EdnError
        If the text is not EDN.
    """
    # Open brackets, the text itself first.
    stack = [_Open("", 1)]
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
            case "discard":
                stack[-1].discarded += 1
                continue
            case "open":
                stack.append(_Open(word, line))
                continue
            case "close":
                value = _closed(stack, word, line)
            case "string":
                value = _string(word, line)
                line += word.count("\n")
            case "number":
                value = _NUMBERS.get(word, word)
            case _:
                value = _atom(word)
        around = stack[-1]
        if around.discarded:
            around.discarded -= 1
        elif len(stack) > 1:
            around.values.append(value)
        else:
            yield value
    if len(stack) > 1:
        raise EdnError(f", line {stack[-1].line}: {stack[-1].sign!r} is never closed")


class _Open:
    """An open bracket: its line, the values in it, how many of the next values are discarded."""

    __slots__ = ("discarded", "line", "sign", "values")

    def __init__(self, sign: str, line: int) -> None:
        self.sign = sign
        self.line = line
        self.values: list[Any] = []
        self.discarded = 0


def _closed(stack: list[_Open], word: str, line: int) -> Any:
    if len(stack) == 1 or _CLOSING[stack[-1].sign] != word:
        raise EdnError(f", line {line}: {word!r} closes nothing")
    closed = stack.pop()
    sign, values = closed.sign, closed.values
    if sign == "#{":
        return frozenset(map(hashable, values))
    if sign != "{":
        return values
    if len(values) % 2:
        raise EdnError(f", line {line}: a key of a map has no value")
    value = Map(zip(map(hashable, values[::2]), values[1::2], strict=True))
    value.line = line
    return value


def hashable(value: Any) -> Hashable:
    """Return a value with tuples for its lists, and sets of pairs for its maps."""
    if isinstance(value, list):
        return tuple(map(hashable, value))
    if isinstance(value, dict):
        return frozenset((key, hashable(each)) for key, each in value.items())
    key: Hashable = value
    return key


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
