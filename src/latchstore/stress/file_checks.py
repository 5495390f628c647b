"""How the command ``check`` checks a history: against a model, or as transactions on lists.

Thread safety: one check at a time uses an object.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from latchstore.stress.edn import hashable
from latchstore.stress.file_models import (
    CompareAndSetRegister,
    KeyValue,
    Mutex,
    Queue,
    Register,
    Set,
    Transactions,
)
from latchstore.stress.history import History, HistoryError, Operation
from latchstore.stress.linearizability import Progress, check_linearizable
from latchstore.stress.list_append import Append, ListTransaction, Read, check_list_append
from latchstore.stress.models import Model
from latchstore.stress.smallest import smallest_part
from latchstore.stress.tracebacks import origin_of, summary_of
from latchstore.stress.verdict import Verdict

#: Stands for an initial value that was not given.
NOT_GIVEN: Any = object()

#: Time limit of the reduction of an invalid history, in seconds.
_REDUCTION_SECONDS = 5.0

#: The models that are there; each is made with the initial value, if one is given.
MODELS: dict[str, Callable[..., Any]] = {
    "register": Register,
    "cas": CompareAndSetRegister,
    "kv": KeyValue,
    "mutex": Mutex,
    "queue": Queue,
    "set": Set,
    "txn": Transactions,
}

#: The name of the check of transactions on lists.
LIST_APPEND = "list-append"

NAMES = (*MODELS, LIST_APPEND)


class ModelError(ValueError):
    """There is no such model; the message has the reason."""


class Check(Protocol):
    """A way to check histories."""

    def verdict(
        self, history: History, seconds: float | None, progress: Callable[[Progress], None] | None = None
    ) -> Verdict:
        """Return the verdict of a history.

        Raises
        ------
        HistoryError
            If the history has operations that the check does not have.
        """

    def smallest(self, history: History, verdict: Verdict) -> tuple[Sequence[Operation], Verdict]:
        """Return the operations of an invalid history that show why, and their verdict."""


def check_of(name: str, initial: Any = NOT_GIVEN) -> Check:
    """Return the check that ``--model`` names.

    Raises
    ------
    ModelError
        If there is none.
    """
    if name == LIST_APPEND:
        if initial is not NOT_GIVEN:
            raise ModelError(f"--initial is not for --model {name}: lists are empty at the beginning")
        return _ListCheck()
    if name in MODELS:
        return _ModelCheck(name, initial, None)
    if initial is not NOT_GIVEN:
        raise ModelError("--initial is for the models that are there; a model of yours has its own 'initial'")
    return _ModelCheck(name, initial, _imported(name))


def _imported(name: str) -> Model[Any, Any, Any]:
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ModelError(f"--model must be one of {', '.join(NAMES)}, or module:Name, got {name!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # like ``python -m``: import from the current directory as well
    try:
        found: Any = getattr(importlib.import_module(module_name), attribute)
        model: Any = found() if isinstance(found, type) else found
    except Exception as error:
        raise ModelError(f"--model {name!r} cannot be imported: {error!r}") from error
    if not hasattr(model, "initial") or not callable(getattr(model, "step", None)):
        raise ModelError(f"--model {name!r} must have an attribute 'initial' and a method 'step'")
    return model  # type: ignore[no-any-return]


class _ModelCheck:
    """Looks for an order that a model allows.

    Parameters
    ----------
    name : str
    initial : object
        The initial value of a model that is there.
    model : Model or None
        A model of the user's.
    """

    def __init__(self, name: str, initial: Any, model: Model[Any, Any, Any] | None) -> None:
        self._name = name
        self._initial = initial
        self._model = model

    def verdict(
        self, history: History, seconds: float | None, progress: Callable[[Progress], None] | None = None
    ) -> Verdict:
        """Return the verdict, see `Check`."""
        model = self._model_for(history)
        try:
            return check_linearizable(
                history.operations, model, budget=None, seconds=seconds, progress=progress
            )
        except Exception as error:
            where = origin_of(error)
            notes = "; ".join(getattr(error, "__notes__", ()))
            told = f"{summary_of(error)}{f', at {where}' if where else ''}{f' ({notes})' if notes else ''}"
            raise HistoryError(f"--model {self._name} cannot be applied: {told}") from error

    def smallest(self, history: History, verdict: Verdict) -> tuple[Sequence[Operation], Verdict]:
        """Return a part that is still invalid, see `Check`."""
        return smallest_part(history.operations, verdict, self._model_for(history), _REDUCTION_SECONDS)

    def _model_for(self, history: History) -> Model[Any, Any, Any]:
        if self._model is not None:
            return self._model
        make = MODELS[self._name]
        _check_operations(history, self._name, make.operations)  # type: ignore[attr-defined]
        given = {} if self._initial is NOT_GIVEN else {"initial": self._initial}
        if make is not KeyValue:
            return make(**given)  # type: ignore[no-any-return]
        if any(
            each.name == "get" and each.outcome == "ok" and each.result is None for each in history.operations
        ):
            given = {"initial": None, **given}
        return KeyValue((each.invocation for each in history.operations), **given)


def _check_operations(history: History, model: str, names: Sequence[str]) -> None:
    """Raise `HistoryError` if there is an operation with another name, or a transaction without steps."""
    for number, each in enumerate(history.operations, 1):
        known = each.name in names
        if known and (
            each.name != "txn" or _are_steps(each.result if each.outcome == "ok" else each.argument)
        ):
            continue
        got = f"got {each} (operation {number:,} of {len(history.operations):,})"
        if not known:
            raise HistoryError(
                f"--model {model} expects the operations {', '.join(names)}, {got}: choose another model, or "
                "write one that has this operation"
            )
        raise HistoryError(f"--model {model} expects lists of steps such as [:r 1 nil], {got}")


def _are_steps(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(step, list) and len(step) in (2, 3) for step in value)


class _ListCheck:
    """Looks for anomalies of transactions, ``txn``, that append to lists and read them."""

    def verdict(
        self, history: History, seconds: float | None, progress: Callable[[Progress], None] | None = None
    ) -> Verdict:
        """Return the verdict, see `Check`."""
        _check_operations(history, LIST_APPEND, ("txn",))
        return check_list_append(map(_transaction, range(1, len(history.operations) + 1), history.operations))

    def smallest(self, history: History, verdict: Verdict) -> tuple[Sequence[Operation], Verdict]:
        """Return the transactions of the anomaly, see `Check`."""
        return sorted(verdict.operations, key=lambda each: each.begin), verdict


def _transaction(number: int, operation: Operation) -> ListTransaction:
    actions: list[Append | Read] = []
    for name, key, *value in operation.result if operation.outcome == "ok" else operation.argument:
        where: Any = hashable(key)
        if name == "append":
            what: Any = hashable(value[0])
            actions.append(Append(where, what))
        elif name in ("r", "read"):
            values: Any = hashable(list(value[0] or ()) if value else [])
            actions.append(Read(where, values))
        else:
            raise HistoryError(
                f"--model {LIST_APPEND} expects the steps append and r, got {name!r} in {operation}"
            )
    return ListTransaction(
        number, tuple(actions), operation.begin, operation.end, operation.outcome, operation
    )
