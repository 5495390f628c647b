"""What redis-py is imported for, and what is said where it is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("missing", ["redis", "hiredis", "msgpack"])
def test_a_missing_library_is_named_with_the_extra(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import latchstore; latchstore.RedisStore"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: ")
    assert missing in last
    assert "pip install 'latchstore[redis]'" in last
