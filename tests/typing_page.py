"""A page of user code, which type checkers read, and which runs: what it puts in has the type that comes out.

It needs no annotation but those that a reader would want anyway, and no comment for a checker but in
`mistakes`, where each line is an error for both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, assert_type

from latchstore import (
    AbstractReadOnlyStore,
    AbstractStore,
    Cache,
    Codec,
    CodecError,
    DeadLetter,
    DictMemoryStore,
    EventManager,
    EventsLost,
    Job,
    LockTimeoutError,
    RevisionMismatchError,
    Snapshot,
    StoreDeleteEvent,
    StoreMapping,
    StoreModificationEvent,
    StoreSetEvent,
    StoreView,
    StringValue,
    Transaction,
    TransactionConflictError,
    Value,
    Watch,
    Worked,
    WorkQueue,
)


@dataclass(frozen=True)
class User:
    name: str
    logins: int = 0


@dataclass(frozen=True)
class Admin(User):
    level: int = 1


class UserCodec:
    """A codec of one type, which needs not derive from anything."""

    def encode(self, value: User) -> bytes:
        return json.dumps(asdict(value)).encode()

    def decode(self, data: bytes) -> User:
        return User(**json.loads(data))


def user_of(key: str) -> User:
    return User(key)


def users_of(keys: list[str]) -> dict[str, User]:
    return {key: User(key) for key in keys}


def length_of(key: str) -> int:
    return len(key)


# -- stores ---------------------------------------------------------------------------------------


def stores() -> None:
    with DictMemoryStore(EventManager(), indexes=["kind"]) as store:
        assert_type(store, DictMemoryStore)
        store.set("a", StringValue(b"1", {"kind": "x"}))
        store.set("b", (b"2", {}))
        store.from_bytes("c", b"3")
        store.set("c", store.get("a"), if_revision=store.get("c").revision)
        value = store.get("a")
        assert_type(value, Value)
        assert_type(value.data, BinaryIO)
        assert_type(value.metadata, dict[str, Any])
        assert_type(value.revision, int | None)
        assert_type(store.to_bytes("a"), bytes)
        assert_type(store.get_metadata("a", ["kind"]), dict[str, Any])
        assert_type(store.multiget(["a", "b"]), Iterator[Value])
        assert_type(store.query(kind="x"), Iterator[tuple[str, dict[str, Any]]])
        assert_type(store.query_keys(kind="x"), Iterator[str])
        assert_type(store.glob("*"), Iterator[str])
        assert_type(len(store), int)
        assert_type("a" in store, bool)
        assert_type(store.info(), dict[str, Any])
        assert_type(store.wait_for(lambda: len(store)), int)
        assert_type(store.wait_for_key("a"), Value)
        any_store: AbstractStore = store
        readable: AbstractReadOnlyStore = store
        assert any_store is readable


def transactions() -> None:
    store = DictMemoryStore(EventManager())
    with store.transaction("both") as transaction:
        assert_type(transaction, Transaction)
        assert_type(transaction.revision, int | None)
        store.from_bytes("a", b"1")
        transaction.from_bytes("b", b"2")
        transaction.on_commit(lambda: store.delete("a"))
    assert_type(store.current_transaction(), Transaction | None)
    for attempt in store.attempts("count", tries=3):
        with attempt as counting:
            assert_type(counting, Transaction)
            counting.from_bytes("n", b"1")
    assert_type(double(21), int)
    assert_type(other_double(number=21), int)


_store_of_functions = DictMemoryStore(EventManager())


@_store_of_functions.transactional()
def double(number: int) -> int:
    return 2 * number


@_store_of_functions.transactional(tries=3)
def other_double(number: int) -> int:
    return 2 * number


def snapshots() -> None:
    store = DictMemoryStore(EventManager())
    store.mapping()["key"] = User("Ann")
    with store.snapshot() as snapshot:
        assert_type(snapshot, Snapshot)
        assert_type(snapshot.revision, int)
        assert_type(snapshot.to_bytes("key"), bytes)
        assert_type(snapshot.mapping(), StoreView[Any])
        users: StoreView[User] = snapshot.mapping()
        assert_type(users["key"], User)
        assert_type(snapshot.mapping(UserCodec()), StoreView[User])


def watches() -> None:
    store = DictMemoryStore(EventManager())
    with store.watch(glob="user/*") as watch:
        assert_type(watch, Watch)
        store.from_bytes("user/1", b"")
        change = watch.get(5.0)
        assert_type(change, StoreModificationEvent | EventsLost)
        if isinstance(change, EventsLost):
            assert_type(change.last_revision, int)
        else:
            assert_type(change.key, str)
            assert_type(change.metadata, dict[str, Any])
        store.close()
        for each in watch:
            assert_type(each, StoreModificationEvent | EventsLost)


def events() -> None:
    manager = EventManager()
    heard = list[str]()

    def on_set(event: StoreSetEvent) -> None:
        heard.append(event.key)

    def on_delete(event: StoreDeleteEvent) -> None:
        assert_type(event.action, str)

    with DictMemoryStore(manager) as store:
        manager.connect(StoreSetEvent, on_set, {"key": "a"}, priority=1)
        manager.connect(StoreDeleteEvent, on_delete)
        manager.connect(StoreSetEvent, lambda event: heard.append(event.key))
        store.from_bytes("a", b"")
        store.flush()
        manager.disconnect(StoreSetEvent, on_set)
    assert heard == ["a", "a"]


def errors() -> None:
    store = DictMemoryStore(EventManager())
    store.from_bytes("a", b"1")
    try:
        store.from_bytes("a", b"2", if_revision=77)
    except RevisionMismatchError as error:
        assert_type(error.key, str)
        assert_type(error.actual, int)
    except (LockTimeoutError, TransactionConflictError) as error:
        assert_type(error, LockTimeoutError | TransactionConflictError)
    try:
        store.mapping("json")["a"] = object()
    except CodecError as error:
        assert_type(error.key, str)


# -- mappings -------------------------------------------------------------------------------------


def mappings() -> None:
    store = DictMemoryStore(EventManager())
    untyped = store.mapping(codec="json")
    assert_type(untyped, StoreMapping[Any])
    assert_type(untyped.setdefault("a", 1), Any)
    assert_type(untyped.get("a"), Any | None)
    untyped.clear()
    users: StoreMapping[User] = store.mapping()
    users["Ann"] = User("Ann")
    assert_type(users["Ann"], User)
    assert_type(users.get("Ann"), User | None)
    assert_type(users.get("Ann", User("nobody")), User)
    assert_type(users.get("Ann", 0), User | int)
    assert_type(users.setdefault("Bob", User("Bob")), User)
    users.update({"Cid": Admin("Cid")}, Dot=User("Dot"))
    users.update([("Cid", User("Cid"))])
    assert_type(list(users), list[str])
    assert_type([user.name for user in users.values()], list[str])
    assert_type({key: user.name for key, user in users.items()}, dict[str, str])
    assert_type(users.pop("Ann"), User)
    assert_type(users.pop("Ann", None), User | None)
    assert_type(users.popitem(), tuple[str, User])
    as_any_mapping: MutableMapping[str, User] = users
    as_any_other: Mapping[str, object] = users
    assert as_any_mapping is as_any_other


def mappings_with_codecs() -> None:
    store = DictMemoryStore(EventManager())
    users = store.mapping(UserCodec())
    assert_type(users, StoreMapping[User])
    assert_type(users.codec, Codec[User])
    assert_type(StoreMapping(store, UserCodec()), StoreMapping[User])
    assert_type(StoreMapping(store), StoreMapping[Any])
    assert_type(StoreMapping[User](store), StoreMapping[User])
    assert_type(StoreView[User](store, "json"), StoreView[User])


# -- caches ---------------------------------------------------------------------------------------


class Service:
    """Caches as attributes and parameters, with a type of value and without."""

    def __init__(self, cache: Cache, users: Cache[User] | None = None) -> None:
        self.cache = cache
        self.users = Cache[User](max_entries=10) if users is None else users
        self.more = Cache(ttl=60.0)

    def of(self, key: str) -> User:
        return self.users.get_or_load(key, user_of)


def untyped_caches() -> None:
    cache = Cache(max_entries=100)
    assert_type(cache, Cache[Any])
    service = Service(cache)
    assert_type(service.cache, Cache[Any])
    assert_type(service.users, Cache[User])
    assert_type(service.more, Cache[Any])
    cache["a"] = 1
    cache.set("b", User("b"), ttl=5.0, tags=["users"])
    assert_type(cache["a"], Any)
    assert_type(cache.get("a"), Any | None)
    assert_type(cache.get_many(["a", "b"]), dict[str, Any])
    assert_type(cache.modify("a", lambda number: number + 1), Any)
    with Cache() as entered:
        assert_type(entered, Cache[Any])


def typed_caches() -> None:
    annotated: Cache[User] = Cache()
    users = Cache[User](max_entries=10)
    assert_type(users, Cache[User])
    assert_type(Service(Cache(), annotated).of("Ann"), User)
    users["Ann"] = User("Ann")
    users.set("Bob", Admin("Bob"), ttl=60.0)
    users.set_many({"Cid": User("Cid")}, tags=["users"])
    users.update({"Cid": Admin("Cid")}, Dot=User("Dot"))
    assert_type(users.add("Ann", User("Ann")), bool)
    assert_type(users["Ann"], User)
    assert_type(users.get("Ann"), User | None)
    assert_type(users.get("Ann", User("nobody")), User)
    assert_type(users.get("Ann", default=0), User | int)
    assert_type(users.get_many(["Ann", "Bob"]), dict[str, User])
    assert_type(users.setdefault("Ann", User("Ann")), User)
    assert_type([user.name for user in users.values()], list[str])
    assert_type({key: user.logins for key, user in users.items()}, dict[str, int])
    assert_type(users.modify("Ann", lambda user: User(user.name, user.logins + 1)), User)
    assert_type(users.modify("Eve", logged_in, default=None), User)
    assert_type(users.pop("Ann"), User)
    assert_type(users.pop("Ann", None), User | None)
    assert_type(users.popitem(), tuple[str, User])
    assert_type(users.delete("Ann"), bool)
    assert_type(users.remaining("Bob") if "Bob" in users else None, float | None)
    assert_type(users.stats(), dict[str, Any])


def logged_in(user: User | None) -> User:
    return User("Eve") if user is None else User(user.name, user.logins + 1)


def counters() -> None:
    numbers: Cache[int] = Cache(max_entries=10)
    assert_type(numbers.modify("hits", lambda number: number + 1, default=0), int)
    assert_type(numbers.modify("hits", lambda number: (number or 0) + 1, default=None), int)
    numbers.clear()
    assert_type(numbers.get("hits", 0) + 1, int)


def caches_with_codecs() -> None:
    store = DictMemoryStore(EventManager())
    users = Cache(store, codec=UserCodec())
    assert_type(users, Cache[User])
    raw: Cache[bytes] = Cache(codec="raw")
    raw["a"] = b"1"
    assert_type(raw["a"], bytes)


def loads() -> None:
    # What comes back is what the cache has, or what the loader returns: with a type of value that is one, and
    # without it the loader's is not lost.
    users: Cache[User] = Cache(max_entries=10)
    assert_type(users.get_or_load("Ann", user_of), User)
    assert_type(users.get_or_load("Ann", lambda key: User(key), ttl=5.0), User)
    assert_type(users.get_or_load("Eve", lambda key: None), User | None)
    assert_type(users.get_many_or_load(["Ann", "Bob"], users_of), dict[str, User])
    cache = Cache(max_entries=10)
    number = cache.get_or_load("Ann", length_of)
    assert_type(number, Any | int)
    assert_type(number.bit_length(), Any | int)
    as_number: int = number
    of_each: dict[str, User] = cache.get_many_or_load(["Bob"], users_of)
    loader: Callable[[str], User] = users.__getitem__
    assert as_number == 3
    assert of_each == {"Bob": loader("Ann").__class__("Bob")}


def loads_by_a_pool() -> None:
    users: Cache[User] = Cache(max_entries=10)
    with ThreadPoolExecutor(2) as pool:
        assert_type(pool.submit(users.get_or_load, "Ann", user_of, ttl=5.0).result().name, str)
        assert_type(pool.submit(users.get, "Ann").result(), User | None)


def work_queues() -> None:
    store = DictMemoryStore(EventManager())
    users = WorkQueue(store, "users", codec=UserCodec())
    assert_type(users, WorkQueue[User])
    assert_type(users.put(User("Ann"), priority=1), str)
    job = users.claim(timeout=0)
    assert_type(job, Job[User] | None)
    assert job is not None
    with job as same:
        assert_type(same.payload, User)
        assert_type(same.payload.name, str)
    numbers: WorkQueue[int] = WorkQueue(store, "numbers")
    numbers.put(1)

    def work(job: Job[int]) -> None:
        assert_type(job.payload + 1, int)
        job.fail("no reason")

    assert_type(numbers.run(work, threads=1, progress=False), Worked)
    for letter in numbers.dead_letters():
        assert_type(letter, DeadLetter[int])
        assert_type(letter.payload, int)
    numbers.close()
    for each in numbers:
        assert_type(each, Job[int])


# -- memoized functions ---------------------------------------------------------------------------

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
    users: Cache[User] = Cache()
    users["Ann"] = 1  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
    users.set("Ann", "Ann")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    users.set_many({"Ann": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    users.modify("Ann", repr)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ann: User = users.get_or_load("Ann", length_of)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    Cache[int](codec=UserCodec())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    users.set("Ann", ann, max_age=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    StoreMapping[User](DictMemoryStore())["Ann"] = 1  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
    area("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    area.invalidate(2, depth=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    shop.price()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    shop.price(article=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    cache.memoize(max_age=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
