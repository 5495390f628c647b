"""Patterns match what `fnmatch.fnmatchcase` matches, on the quick ways as on the long one."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latchstore import DictMemoryStore, EventManager
from latchstore.contract.glob_pattern import matching_keys

PROFILE = settings(max_examples=3 * settings().max_examples)

# Few characters, so that patterns do match; then all that are special to patterns or to `re`.
patterns = st.one_of(st.text(alphabet="ab*?", max_size=5), st.text(alphabet="abAB*?[]!-^./\\\n", max_size=7))
keys = st.lists(
    st.one_of(st.text(alphabet="ab", max_size=4), st.text(alphabet="abAB[]!-^./*?\\\n", max_size=6)),
    max_size=8,
)


@PROFILE
@given(pattern=patterns, keys=keys)
def test_matches_what_fnmatchcase_matches(pattern: str, keys: list[str]) -> None:
    expected = [key for key in keys if fnmatch.fnmatchcase(key, pattern)]
    assert matching_keys(pattern, keys) == expected


@settings(PROFILE, max_examples=settings().max_examples)
@given(literal=st.text(max_size=4), before=st.text(max_size=2), after=st.text(max_size=2))
@pytest.mark.parametrize("shape", ["{}", "{}*", "*{}", "*{}*", "**{}", "{}**", "?{}", "{}?"])
def test_each_quick_shape_matches_what_fnmatchcase_matches(
    shape: str, literal: str, before: str, after: str
) -> None:
    pattern = shape.format(literal)
    keys = [literal, before + literal, literal + after, before + literal + after, before + after, literal * 2]
    assert matching_keys(pattern, keys) == [key for key in keys if fnmatch.fnmatchcase(key, pattern)]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", ["", "a", "A", "a/b", "a.b", "ab\n", "[a]", "*"]),
        ("**", ["", "a", "A", "a/b", "a.b", "ab\n", "[a]", "*"]),
        ("", [""]),
        ("a", ["a"]),
        ("?", ["a", "A", "*"]),
        ("a*", ["a", "a/b", "a.b", "ab\n"]),
        ("*b", ["a/b", "a.b"]),
        ("a?b", ["a/b", "a.b"]),
        ("[aA]", ["a", "A"]),
        ("[!a]", ["A", "*"]),
        ("[[]a]", ["[a]"]),
        ("[*]", ["*"]),
        ("*.*", ["a.b"]),
        ("a*b", ["a/b", "a.b"]),
        ("*a*b*", ["a/b", "a.b", "ab\n"]),
        ("ab?", ["ab\n"]),
    ],
)
def test_what_patterns_mean(pattern: str, found: list[str]) -> None:
    keys = ["", "a", "A", "a/b", "a.b", "ab\n", "[a]", "*"]
    assert matching_keys(pattern, keys) == found
    store = DictMemoryStore(EventManager())
    store.multiset_data(keys, [b""] * len(keys))
    assert list(store.glob(pattern)) == found


@pytest.mark.parametrize("pattern", [b"*", None, 3, ["*"]])
def test_a_pattern_is_a_string(pattern: Any) -> None:
    with pytest.raises(TypeError, match=r"^pattern must be a str, got "):
        matching_keys(pattern, ["a"])


class Loud(str):
    """A string whose methods must not be asked."""

    __slots__ = ()

    def strip(self, *arguments: Any) -> str:
        pytest.fail("a method of the pattern's own was called")

    def startswith(self, *arguments: Any) -> bool:
        pytest.fail("a method of the pattern's own was called")

    def __eq__(self, other: object) -> bool:
        pytest.fail("a method of the pattern's own was called")

    def __hash__(self) -> int:
        pytest.fail("a method of the pattern's own was called")


@pytest.mark.parametrize("pattern", ["a", "a*", "[a]", "*"])
def test_a_pattern_of_a_string_subclass_is_a_plain_string(pattern: str) -> None:
    assert matching_keys(Loud(pattern), ["a"]) == ["a"]
