"""The scripts that run on the server, each called by its digest, and sent as a whole if the server lacks it.

Thread safety: scripts are immutable.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    """A script for the server.

    Attributes
    ----------
    text : bytes
    digest : bytes
        Digest by which the server identifies it.
    """

    text: bytes
    digest: bytes


def script(*names: str, flags: str = "") -> Script:
    """Return the script that consists of some files of this package.

    Parameters
    ----------
    *names : str
    flags : str
        Flags of the script, see "Script flags" in Redis's documentation. Without ``allow-oom`` the server
        refuses it while it has no memory left, before it has any effect.
    """
    folder = files("latchstore.redis")
    parts = [folder.joinpath(name).read_text(encoding="utf-8") for name in names]
    head = f"#!lua flags={flags}\n" if flags else "#!lua\n"
    text = (head + "".join(parts)).encode()
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


#: A commit while no cache was ever opened on the namespace; and one that frees memory, which is allowed even
#: if there is none left.
COMMIT = script("positions.lua", "claim.lua", "plain.lua", "commit.lua")
COMMIT_DELETING = script("positions.lua", "claim.lua", "plain.lua", "commit.lua", flags="allow-oom")

#: The same when there are caches.
COMMIT_CACHED = script("positions.lua", "claim.lua", "caches.lua", "commit.lua")
COMMIT_CACHED_DELETING = script("positions.lua", "claim.lua", "caches.lua", "commit.lua", flags="allow-oom")

READ = script("log.lua", "read.lua", flags="no-writes")
PAGE = script("log.lua", "page.lua", flags="no-writes")
COUNT = script("log.lua", "count.lua", flags="no-writes")
QUERY = script("log.lua", "query.lua", flags="no-writes")
SIZES = script("sizes.lua", flags="no-writes")
FIRST = script("first.lua", flags="no-writes")
INDEX = script("positions.lua", "index.lua")

FOLLOW = script("follow.lua", flags="no-writes")
EPOCH = script("epoch.lua", flags="allow-oom")

# Releasing a lease must be possible when there is no memory left.
LEASE = script("lease.lua", flags="allow-oom")
OPEN = script("open.lua", flags="allow-oom")
RESOLVE = script("resolve.lua", flags="allow-oom")

BOOKS = script("caches.lua", "books.lua")
# The same for the lease of a load.
RELEASE = script("caches.lua", "books.lua", flags="allow-oom")
