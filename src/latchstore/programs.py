"""The programs of the package, which the store does not load: the one list of them."""

from __future__ import annotations

#: Each command: the module that has it, and what it does in one line.
COMMANDS = {
    "demo": ("latchstore.examples.demo", "show what threads do to a plain dict, and not to this store"),
    "stress": (
        "latchstore.stress.command",
        "put a store under stress, and prove from what it answers that it is right",
    ),
    "cache-sim": (
        "latchstore.cache_simulation.command",
        "compare what cache eviction policies make of a trace of requests",
    ),
    "check": (
        "latchstore.stress.check_command",
        "check histories that others have recorded for linearizability",
    ),
    "recheck": ("latchstore.stress.recheck", "check a history of 'stress' again"),
}

#: The rooms of the commands, and the module that runs them.
PROGRAMS = frozenset({"__main__", *(module.split(".")[1] for module, _ in COMMANDS.values())})
