"""What needs a package that is not installed is an error that names the extra."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

#: Where the package is missing, what is called, and the extra that the message names.
CASES = (
    ("tqdm", "latchstore.progress_bars(latchstore.DictMemoryStore())", "progress"),
    ("tqdm", "latchstore.WorkQueue(latchstore.DictMemoryStore(), 'q').run(print, progress=True)", "progress"),
    ("sortedcontainers", "latchstore.DictMemoryStore(indexes=[latchstore.Ordered('n')])", "ordered"),
    ("msgpack", "latchstore.Cache(codec='msgpack')", "redis"),
    ("redis", "latchstore.RedisStore", "redis"),
    ("hiredis", "latchstore.RedisStore", "redis"),
    ("prometheus_client", "import latchstore.metrics", "prometheus"),
    ("django", "import latchstore.backends.django", "django"),
    ("dogpile", "import latchstore.backends.dogpile", "dogpile"),
    ("cachelib", "import latchstore.backends.cachelib", "flask"),
    ("flask_caching", "import latchstore.backends.flask_caching", "flask"),
)

PROGRAM = """
import sys
import latchstore
for package, code, extra in {cases!r}:
    sys.modules[package] = None
    try:
        exec(code)
    except ModuleNotFoundError as error:
        print(f"{{package}} | {{error}}")
    else:
        print(f"{{package}} | no error of {{code}}")
    del sys.modules[package]
"""


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(cases=CASES)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(CASES)
    for line, (package, code, extra) in zip(lines, CASES, strict=True):
        assert re.search(rf"needs .*: python -m pip install 'latchstore\[{extra}\]'", line), (line, code)
        assert package in line.rpartition("(")[2], line
