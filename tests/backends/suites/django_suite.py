"""Django's own cache tests, on our backend. Run by test_suites.py, in a process of its own.

``cache.tests`` is of Django's source distribution, whose ``tests`` directory is on the path.
"""

from __future__ import annotations

import sys

import django
from django.conf import settings
from django.test import TestCase, override_settings
from django.test.utils import get_runner

BACKEND = "latchstore.backends.django.LatchstoreCache"

if not settings.configured:
    settings.configure(
        SECRET_KEY="of a test",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3"}},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=["cache"],
        CACHES={"default": {"BACKEND": BACKEND}},
        USE_TZ=False,
    )
    django.setup()

from cache.tests import (  # noqa: E402
    BaseCacheTests,
    PicklingSideEffect,
    cache,
    caches,
    caches_setting_for_tests,
)

# Caches with other bounds are at a location of their own, which Django's settings for its tests do not give.
CACHES = caches_setting_for_tests(BACKEND=BACKEND)
for name in ("cull", "zero_cull"):
    CACHES[name]["LOCATION"] = name


@override_settings(CACHES=CACHES)
class LatchstoreCacheTests(BaseCacheTests, TestCase):
    """All that Django asks of every backend, and what it asks of locmem beside its own order of eviction."""

    def test_cull(self) -> None:
        # A third goes at once in Django's own backends; here one does.
        self._perform_cull_test("cull", 50, 30)

    def test_zero_cull(self) -> None:
        # As above: CULL_FREQUENCY is not looked at.
        self._perform_cull_test("zero_cull", 50, 30)

    @override_settings(
        CACHES={"default": {"BACKEND": BACKEND}, "other": {"BACKEND": BACKEND, "LOCATION": "other"}}
    )
    def test_multiple_caches(self) -> None:
        cache.set("value", 42)
        assert caches["default"].get("value") == 42
        assert caches["other"].get("value") is None

    def test_locking_on_pickle(self) -> None:
        store = cache.cache.store

        class Lock:
            """What Django's test looks at, whose other methods are the cache's own."""

            def locked(self) -> bool:
                return store.current_transaction() is not None

        class Locked:
            _lock = Lock()

        for put in (cache.set, cache.add):
            value = PicklingSideEffect(Locked())
            put(f"by_{put.__name__}", value)
            assert not value.locked


if __name__ == "__main__":
    # Under its own name, which is that of a module for Django to look for tests in.
    sys.exit(bool(get_runner(settings)(verbosity=1).run_tests(["django_suite.LatchstoreCacheTests"])))
