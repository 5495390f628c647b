"""How long does it take to import latchstore?

Fresh interpreters in turn: one that does nothing, one that imports latchstore, one that imports encore's
store. The bytecode is there already, as after the first start: in a folder of its own, whatever the
environment says of writing bytecode.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.measure import Answer, Figure, Ratio, markdown, ratio_table

_CODES = {
    "nothing": "pass",
    "latchstore": "import latchstore",
    "encore's DictMemoryStore": "import encore.storage.dict_memory_store",
}
LIMIT = 60.0


def milliseconds(code: str, environment: dict[str, str]) -> float:
    """Return how long an interpreter takes that does something and ends."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return (time.perf_counter() - begun) * 1e3


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    rounds: dict[str, list[float]] = {name: [] for name in _CODES}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for code in _CODES.values():
            milliseconds(code, environment)
        for _ in range(3 if quick else 30):
            for name, code in _CODES.items():
                rounds[name].append(milliseconds(code, environment))
    medians = {name: statistics.median(times) for name, times in rounds.items()}
    pairs = zip(rounds["latchstore"], rounds["nothing"], strict=True)
    more = statistics.median(ours - nothing for ours, nothing in pairs)
    ratios = [Ratio("import latchstore, beyond an interpreter that does nothing", more, LIMIT, "ms", 1.0)]
    rows = [[name, f"{each:.1f}", f"{each - medians['nothing']:.1f}"] for name, each in medians.items()]
    table = markdown(["an interpreter that imports", "ms", "more than nothing"], rows)
    figures = [Figure.of(name, times, "ms") for name, times in rounds.items()]
    return Answer(f"{ratio_table(ratios)}\n\n{table}", ratios, figures)
