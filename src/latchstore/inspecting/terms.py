"""Parses query terms of a command line: ``state=new``, ``due<10``, ``due=10..20``.

Thread safety: the functions have no state.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from latchstore.contract.condition import Condition, fits
from latchstore.contract.contains import Contains, In
from latchstore.contract.ranges import Above, Below, Between, Prefix

#: The syntax of a term, for help.
SYNTAX = (
    "ITEM=VALUE, ITEM=A|B (one of several), ITEM=LOW..HIGH (from LOW on, below HIGH), ITEM<VALUE, "
    "ITEM<=VALUE, ITEM>VALUE, ITEM>=VALUE, ITEM^=TEXT (begins with), ITEM~=VALUE (contains). A VALUE is "
    "JSON, or else text"
)

_TERM = re.compile(r"(?P<item>.+?)(?P<operator><=|>=|\^=|~=|=|<|>)(?P<value>.*)", re.DOTALL)


class AllOf(Condition):
    """Matches values that match several terms.

    Parameters
    ----------
    terms : iterable
    """

    def __init__(self, terms: Iterable[Any]) -> None:
        self._terms = tuple(terms)

    def matches(self, value: Any) -> bool:
        return all(fits(value, term) for term in self._terms)


def parsed_terms(texts: Iterable[str]) -> dict[str, Any]:
    """Return the terms of texts, by item.

    Raises
    ------
    ValueError
        If a text is not a term; the error has the syntax.
    """
    terms: dict[str, list[Any]] = {}
    for text in texts:
        item, term = _parsed(text)
        terms.setdefault(item, []).append(term)
    return {item: several[0] if len(several) == 1 else AllOf(several) for item, several in terms.items()}


def _parsed(text: str) -> tuple[str, Any]:
    match = _TERM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a term; a term is {SYNTAX}")
    item, operator, value = match["item"].strip(), match["operator"], match["value"].strip()
    try:
        return item, _term(operator, value)
    except TypeError as error:
        raise ValueError(f"{text!r}: {error}") from None


def _term(operator: str, text: str) -> Any:
    value = _value(text)
    if operator == "<":
        return Below(value)
    if operator == "<=":
        return Below(value, inclusive=True)
    if operator == ">":
        return Above(value)
    if operator == ">=":
        return Above(value, inclusive=True)
    if operator == "^=":
        return Prefix(text)
    if operator == "~=":
        return Contains(value)
    if value is text:  # not JSON
        if "|" in text:
            return In([_value(each) for each in text.split("|")])
        low, dots, high = text.partition("..")
        if dots and low and high:
            return Between(_value(low), _value(high))
    return value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
