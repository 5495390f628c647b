"""Known races of public packages are found, and sound classes of others and of ours give no alarm."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("cachetools")

from latchstore.stress import Test
from tests.stress.any_class.known_bugs import RACY
from tests.stress.any_class.sound_classes import SOUND

pytestmark = pytest.mark.timeout(400)

#: Those that are found and made small soon; with LATCHSTORE_ALL_MUTANTS all are.
SHORT = ("LinkedLRUTest", "ConnectionsTest", "SizedPoolTest", "UnlockedCachetoolsTest")


@pytest.mark.parametrize(
    "kind", [each for each in RACY if each.__name__ in SHORT or "LATCHSTORE_ALL_MUTANTS" in os.environ]
)
def test_known_races_are_found(kind: type[Test]) -> None:
    report = kind.run()
    assert report.answer == "invalid", str(report)
    assert report.reason == "no order of the calls in one thread explains their results"


@pytest.mark.parametrize("kind", SOUND)
def test_sound_classes_give_no_alarm(kind: type[Test]) -> None:
    report = kind.run()
    assert report.answer == "valid", str(report)
