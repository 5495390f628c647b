"""Loads inside optimistic transactions; the tests are in tests/shared_caches."""

from __future__ import annotations

from tests.shared_caches.loads_inside import LoadsInsideContract


class TestLoadsInside(LoadsInsideContract): ...
