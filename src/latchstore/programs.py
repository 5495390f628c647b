"""The list of the package's commands; the store does not import them."""

from __future__ import annotations

#: Each command, with its module and a one-line description.
COMMANDS = {
    "demo": ("latchstore.examples.demo", "show four threads on a plain dict and on a store, side by side"),
    "inspect": (
        "latchstore.inspecting.command",
        "show the contents of a store: a file, a server's namespace, or a store of a module",
    ),
    "top": ("latchstore.inspecting.top_command", "serve a web page that shows the activity of a store"),
    "stress": (
        "latchstore.stress.command",
        "run threads against a store or a class, and check from the recorded results that it is correct",
    ),
    "check": ("latchstore.stress.check_command", "check recorded histories for linearizability"),
    "recheck": ("latchstore.stress.recheck", "check a history of 'stress' again"),
    "cache-sim": (
        "latchstore.cache_simulation.command",
        "compare the hit ratios of cache eviction policies on a trace of requests",
    ),
}

#: The packages of the commands, the module that runs them, and the one that they share.
PROGRAMS = frozenset({"__main__", "printable", *(module.split(".")[1] for module, _ in COMMANDS.values())})
