"""A page of user code with memoized functions, which type checkers read: what they take and return stays."""

from __future__ import annotations

from typing import assert_type

from latchstore import Cache

cache = Cache(max_entries=100)


@cache.memoize
def area(width: int, height: int = 1) -> int:
    return width * height


@cache.memoize(ttl=60.0, tags=["texts"])
def repeated(text: str, *, times: int = 1) -> list[str]:
    return [text] * times


class Shop:
    def __init__(self, name: str) -> None:
        self.name = name

    @cache.memoize
    def price(self, article: int, /) -> float:
        return float(article)

    @classmethod
    @cache.memoize(ttl=60.0)
    def of_class(cls, number: int = 0) -> str:
        return f"{cls.__name__} {number}"

    @staticmethod
    @cache.memoize
    def of_none(number: int) -> int:
        return number


def functions() -> None:
    assert_type(area(2, height=3), int)
    assert_type(area.cache_key(2, 3), str)
    assert_type(area.invalidate(width=2), bool)
    assert_type(area.cache_info().hits, int)
    assert_type(repeated("a", times=2), list[str])
    repeated.cache_clear()


def methods(shop: Shop) -> None:
    assert_type(shop.price(1), float)
    assert_type(shop.price.cache_key(1), str)
    assert_type(shop.price.invalidate(1), bool)
    assert_type(Shop.price(shop, 1), float)
    assert_type(Shop.price.cache_info().currsize, int)


def class_and_static_methods(shop: Shop) -> None:
    assert_type(Shop.of_class(1), str)
    assert_type(Shop.of_class(number=1), str)
    assert_type(shop.of_class(1), str)
    assert_type(Shop.of_class.invalidate(1), bool)
    assert_type(Shop.of_class.cache_key(number=1), str)
    assert_type(Shop.of_none.invalidate(1), bool)
    assert_type(Shop.of_none(1), int)
    assert_type(shop.of_none(number=1), int)


def mistakes(shop: Shop) -> None:
    """Each is an error: the comments are checked, so that none is in vain."""
    area("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    area.invalidate(2, depth=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    shop.price()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    shop.price(article=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    cache.memoize(max_age=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
