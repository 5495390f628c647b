"""examples/live_page.py: its page shows orders, parcels and the cache; Ctrl-C ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inspecting.streams import TIMEOUT, Stream

EXAMPLE = Path(__file__).parents[1] / "examples" / "live_page.py"


@pytest.mark.skipif(os.name != "posix", reason="stopped by a signal")
@pytest.mark.usefixtures("interruptible")
def test_the_shop() -> None:
    command = [sys.executable, str(EXAMPLE), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url, _, text = process.stdout.readline().partition(" ")
        assert text == "shows the shop; Ctrl-C closes it\n"
        with Stream(url) as stream:
            state = stream.state(lambda state: state["queues"] and state["activity"]["listeners"])
            assert [each["name"] for each in state["queues"]] == ["parcels"]
            assert [each["name"] for each in state["caches"]] == ["products"]
            assert any(each["name"].endswith("write_to_the_books") for each in state["activity"]["listeners"])
            while not any(each.get("transaction") == "order" for each in stream.changes(1)):
                continue
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == ""
