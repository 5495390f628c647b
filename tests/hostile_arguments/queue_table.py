"""Every public method of work queues and jobs, and what each of its arguments is drawn from."""

from __future__ import annotations

import math
from typing import Any

from latchstore.contract.codec import RawCodec
from latchstore.queue import Job, WorkQueue
from tests.hostile_arguments.offers import (
    COUNTS,
    KEYS,
    METADATA,
    ODD,
    RAISING,
    HostileError,
    Kind,
    Offer,
    bad,
    called,
    good,
)

PAYLOADS = (
    good("7", 7),
    good("None", None),
    good("a list", ["kept", 1.5]),
    Offer("what is not JSON", lambda store: {1, 2}, False),
    Offer("a function", lambda store: len, False),
    RAISING,
)
#: Endless and impossible periods, beside those that are taken.
LEASES = (
    good("60", 60),
    good("0.5", 0.5),
    bad("0", 0, ValueError),
    bad("-1", -1, ValueError),
    bad("nan", math.nan, ValueError),
    bad("infinity", math.inf, ValueError),
    bad("None", None),
    *(each for each in ODD if each.name != "half"),
)
DELAYS = (good("0", 0), *(each for each in LEASES if each.name != "0"))
TIMEOUTS = (
    good("0", 0),
    good("0.01", 0.01),
    bad("-1", -1, ValueError),
    bad("nan", math.nan, ValueError),
    *(each for each in ODD if each.name != "half"),
)
REASONS = (good("''", ""), good("long", "x" * 5_000), *ODD[1:])
JOB_KEYS = (
    *KEYS[:2],
    *(each for each in KEYS[3:] if each.name not in ("1 MB", "None")),
    bad("empty", "", ValueError),
)
FLAGS = (good("False", False), good("True", True))


def fail(*arguments: object) -> Any:
    raise HostileError("raised by a function")


WORK = (
    Offer("one", lambda store: lambda job: None, True),
    Offer("one that calls", lambda store: lambda job: called(store, None), True),
    Offer("one that raises", lambda store: fail, True),
    bad("None", None),
    bad("7", 7),
    RAISING,
)

QUEUE_CONSTRUCTOR: dict[str, Kind] = {
    "store": Kind((Offer("one", lambda store: store, True), bad("7", 7), bad("a dict", {}), RAISING)),
    "name": Kind(
        (
            good("'mails'", "mails"),
            bad("empty", "", ValueError),
            bad("a slash", "a/b", ValueError),
            bad("bytes", b"mails"),
            bad("None", None),
            RAISING,
        )
    ),
    "codec": Kind(
        (good("'json'", "json"), good("one", RawCodec()), bad("no name", "none", ValueError), RAISING)
    ),
    "max_attempts": Kind((*COUNTS, bad("None", None))),
    "backoff": Kind((good("one", lambda attempts: 1.0), bad("7", 7), bad("None", None), RAISING)),
    "clock": Kind((good("one", lambda: 1e9), bad("7", 7), good("None", None), RAISING)),
}

QUEUE_CALLS: dict[str, dict[str, Kind]] = {
    "put": {
        "payload": Kind(PAYLOADS),
        "key": Kind(JOB_KEYS),
        "priority": Kind((good("0", 0), good("-7", -7), bad("10**30", 10**30, ValueError), *ODD)),
        "delay": Kind(DELAYS),
        "metadata": Kind((good("None", None), *(each for each in METADATA if each.name != "None"))),
        "if_exists": Kind(
            (
                good("'refuse'", "refuse"),
                good("'keep'", "keep"),
                bad("no name", "none", ValueError),
                RAISING,
            )
        ),
    },
    "claim": {"timeout": Kind(TIMEOUTS), "lease": Kind(LEASES)},
    "run": {"function": Kind(WORK), "threads": Kind(COUNTS[:1] + COUNTS[2:]), "lease": Kind(LEASES)},
    "close": {"immediate": Kind(FLAGS)},
    "join": {"timeout": Kind(TIMEOUTS)},
}
JOB_CALLS: dict[str, dict[str, Kind]] = {
    "retry": {
        "delay": Kind((good("None", None), *(each for each in DELAYS if each.name != "None"))),
        "reason": Kind(REASONS),
    },
    "fail": {"reason": Kind(REASONS)},
    "extend": {"lease": Kind(LEASES)},
}

QUEUE_TABLE: dict[type, dict[str, dict[str, Kind]]] = {WorkQueue: QUEUE_CALLS, Job: JOB_CALLS}
