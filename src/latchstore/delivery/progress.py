"""Progress bars for the streams that a store reads, drawn by tqdm, which is an extra.

Thread safety: bars are opened, updated and closed on the store's dispatcher thread. Those that are open when
the block ends are closed by the thread that ends it: it clears `_open` first, and the dispatcher's thread
checks `_open` after it has opened a bar, so one of the two closes it; closing twice is harmless.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from latchstore.contract.errors import StoreError
from latchstore.contract.events import (
    StoreProgressEndEvent,
    StoreProgressEvent,
    StoreProgressStartEvent,
    StoreProgressStepEvent,
)
from latchstore.contract.extras import missing_extra
from latchstore.contract.store import AbstractReadOnlyStore


class ProgressBars:
    """A context manager that shows a bar for each stream read into a store; see `progress_bars`.

    Thread safety
    -------------
    The bars belong to the store's dispatcher thread; any thread may enter and leave the block.
    """

    def __init__(self, store: AbstractReadOnlyStore, options: dict[str, Any]) -> None:
        try:
            from tqdm import tqdm
        except ImportError as error:
            raise missing_extra("progress_bars", "tqdm", "progress", error) from error
        self._make_bar: Any = tqdm
        self._store = store
        self._options = options
        # By operation; each change is a single operation of the dict.
        self._bars: dict[Any, Any] = {}
        self._open = False

    def __enter__(self) -> Self:
        if self._open:
            raise StoreError("these progress bars are in use: call progress_bars() for each block")
        self._open = True
        self._store.event_manager.connect(StoreProgressEvent, self._on_progress, {"source": self._store})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._store.event_manager.disconnect(StoreProgressEvent, self._on_progress)
        self._open = False
        for operation in list(self._bars):
            self._close(operation)

    def _on_progress(self, event: StoreProgressEvent) -> None:
        operation = event.operation_id
        if isinstance(event, StoreProgressStartEvent):
            self._bars[operation] = self._new_bar(event)
            if not self._open:
                self._close(operation)
        bar = self._bars.get(operation)
        if bar is None:
            return  # the stream began before the block, or the block has ended
        if isinstance(event, StoreProgressStepEvent):
            bar.update(event.step - bar.n)
        elif isinstance(event, StoreProgressEndEvent):
            if event.exit_state == "normal" and bar.total is not None:
                bar.update(bar.total - bar.n)  # data that is shared instead of read emits no steps
            elif event.exit_state != "normal":
                bar.set_description(f"{event.message} ({event.exit_state})")
            self._close(operation)

    def _new_bar(self, event: StoreProgressStartEvent) -> Any:
        options = {"desc": event.message, "unit": "B", "unit_scale": True, "leave": False}
        return self._make_bar(total=None if event.steps < 0 else event.steps, **(options | self._options))

    def _close(self, operation: object) -> None:
        bar = self._bars.pop(operation, None)
        if bar is not None:
            bar.close()


def progress_bars(store: AbstractReadOnlyStore, **options: Any) -> ProgressBars:
    """Return a context manager that shows a progress bar for each stream that the store reads.

    Needs tqdm: ``python -m pip install 'latchstore[progress]'``. The store's background thread draws the
    bars, so a slow terminal delays writers only once ``max_pending_events`` events are pending.

    Parameters
    ----------
    store : AbstractReadOnlyStore
        The store whose progress events are shown.
    **options
        Arguments of ``tqdm.tqdm``, such as ``file`` or ``disable``. By default a bar counts bytes and is
        removed when its stream has been read.

    Raises
    ------
    ImportError
        If tqdm is not installed.

    Examples
    --------
    >>> import io, latchstore
    >>> with latchstore.DictMemoryStore() as store, latchstore.progress_bars(store, disable=True):
    ...     store.set_data("film", io.BytesIO(bytes(5_000_000)))
    """
    if not isinstance(store, AbstractReadOnlyStore):
        raise TypeError(f"store must be a store, got {type(store).__name__}")
    return ProgressBars(store, options)
