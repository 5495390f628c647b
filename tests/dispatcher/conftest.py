"""A dispatcher that has stopped when its test ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore.delivery.dispatcher import EventDispatcher
from tests.dispatcher.calls import TIMEOUT


@pytest.fixture
def dispatcher() -> Iterator[EventDispatcher]:
    dispatcher = EventDispatcher()
    yield dispatcher
    dispatcher.stop(TIMEOUT)
