"""latchstore: a thread-safe in-memory key-value store with transactions and ordered change events."""

import importlib as _importlib
import typing as _typing

from latchstore.contract.condition import Condition
from latchstore.contract.contains import Contains, In
from latchstore.contract.errors import (
    AuthorizationError,
    BackpressureError,
    CodecError,
    CompactedError,
    DispatcherThreadError,
    EntryTooLargeError,
    FlushTimeoutError,
    JobExistsError,
    KeptByReferenceError,
    LeaseLostError,
    LoadTimeoutError,
    LockTimeoutError,
    OutcomeUnknownError,
    QueueClosedError,
    RecursiveLoadError,
    RevisionMismatchError,
    SnapshotClosedError,
    StoreClosedError,
    StoreError,
    StoreFormatError,
    TransactionClosedError,
    TransactionConflictError,
    TransactionError,
    WaitTimeoutError,
    WatchClosedError,
    WrongThreadError,
)
from latchstore.contract.event_manager import BaseEventManager, get_event_manager, set_event_manager
from latchstore.contract.events import (
    BaseEvent,
    EventsLost,
    ProgressEndEvent,
    ProgressEvent,
    ProgressManager,
    ProgressStartEvent,
    ProgressStepEvent,
    StoreDeleteEvent,
    StoreEvent,
    StoreEvictEvent,
    StoreKeyEvent,
    StoreModificationEvent,
    StoreProgressEndEvent,
    StoreProgressEvent,
    StoreProgressManager,
    StoreProgressStartEvent,
    StoreProgressStepEvent,
    StoreSetEvent,
    StoreTransactionEndEvent,
    StoreTransactionEvent,
    StoreTransactionStartEvent,
    StoreUpdateEvent,
)
from latchstore.contract.ordering import Item, Ordered
from latchstore.contract.ranges import Above, Below, Between, Prefix
from latchstore.contract.store import AbstractReadOnlyStore, AbstractStore
from latchstore.contract.values import StringValue, Value
from latchstore.delivery.event_manager import EventManager
from latchstore.delivery.progress import ProgressBars, progress_bars
from latchstore.delivery.watch import Watch
from latchstore.engine.memory import DictMemoryStore
from latchstore.engine.snapshot import Snapshot
from latchstore.engine.transaction import Transaction, TransactionInfo

if _typing.TYPE_CHECKING:
    from latchstore.cache import Cache, EvictionPolicy, NearCache, Node
    from latchstore.contract.codec import Codec
    from latchstore.contract.mapping import StoreMapping, StoreView
    from latchstore.contract.seconds import Seconds
    from latchstore.queue import DeadLetter, Job, Worked, WorkQueue
    from latchstore.redis import RedisStore as RedisStore
    from latchstore.sqlite import SqliteStore

__version__ = "0.1.0"

# Without RedisStore: `import *` would fail where its extra is not installed.
__all__ = [
    "Above",
    "AbstractReadOnlyStore",
    "AbstractStore",
    "AuthorizationError",
    "BackpressureError",
    "BaseEvent",
    "BaseEventManager",
    "Below",
    "Between",
    "Cache",
    "Codec",
    "CodecError",
    "CompactedError",
    "Condition",
    "Contains",
    "DeadLetter",
    "DictMemoryStore",
    "DispatcherThreadError",
    "EntryTooLargeError",
    "EventManager",
    "EventsLost",
    "EvictionPolicy",
    "FlushTimeoutError",
    "In",
    "Item",
    "Job",
    "JobExistsError",
    "KeptByReferenceError",
    "LeaseLostError",
    "LoadTimeoutError",
    "LockTimeoutError",
    "NearCache",
    "Node",
    "Ordered",
    "OutcomeUnknownError",
    "Prefix",
    "ProgressBars",
    "ProgressEndEvent",
    "ProgressEvent",
    "ProgressManager",
    "ProgressStartEvent",
    "ProgressStepEvent",
    "QueueClosedError",
    "RecursiveLoadError",
    "RevisionMismatchError",
    "Seconds",
    "Snapshot",
    "SnapshotClosedError",
    "SqliteStore",
    "StoreClosedError",
    "StoreDeleteEvent",
    "StoreError",
    "StoreEvent",
    "StoreEvictEvent",
    "StoreFormatError",
    "StoreKeyEvent",
    "StoreMapping",
    "StoreModificationEvent",
    "StoreProgressEndEvent",
    "StoreProgressEvent",
    "StoreProgressManager",
    "StoreProgressStartEvent",
    "StoreProgressStepEvent",
    "StoreSetEvent",
    "StoreTransactionEndEvent",
    "StoreTransactionEvent",
    "StoreTransactionStartEvent",
    "StoreUpdateEvent",
    "StoreView",
    "StringValue",
    "Transaction",
    "TransactionClosedError",
    "TransactionConflictError",
    "TransactionError",
    "TransactionInfo",
    "Value",
    "WaitTimeoutError",
    "Watch",
    "WatchClosedError",
    "WorkQueue",
    "Worked",
    "WrongThreadError",
    "__version__",
    "get_event_manager",
    "progress_bars",
    "set_event_manager",
]

#: Names imported at their first use, and their modules: a quarter of the import time (benchmarks/README.md).
_LOADED_WHEN_USED = {
    "Cache": "latchstore.cache",
    "Codec": "latchstore.contract.codec",
    "DeadLetter": "latchstore.queue",
    "EvictionPolicy": "latchstore.cache",
    "Job": "latchstore.queue",
    "NearCache": "latchstore.cache",
    "Node": "latchstore.cache",
    "RedisStore": "latchstore.redis",
    "Seconds": "latchstore.contract.seconds",
    "SqliteStore": "latchstore.sqlite",
    "StoreMapping": "latchstore.contract.mapping",
    "StoreView": "latchstore.contract.mapping",
    "WorkQueue": "latchstore.queue",
    "Worked": "latchstore.queue",
}


def __getattr__(name: str) -> _typing.Any:
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_importlib.import_module(_LOADED_WHEN_USED[name]), name)
    return value


def __dir__() -> list[str]:
    from importlib.util import find_spec

    names = {*globals(), *_LOADED_WHEN_USED}
    if not all(map(find_spec, ("redis", "hiredis", "msgpack"))):
        names.discard("RedisStore")  # help() gets each of the names
    return sorted(names)
