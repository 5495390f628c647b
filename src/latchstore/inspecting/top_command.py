"""The command ``top``: a page that shows the activity of a store of other processes."""

from __future__ import annotations

import argparse
import threading
import webbrowser

from latchstore.inspecting.errors import ended
from latchstore.inspecting.page import serve
from latchstore.inspecting.sources import open_live

#: The default port.
_PORT = 8765


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "Serve a web page that shows the activity of a store: changes as they are committed, statistics, "
        "queues, the writer. It can be read on this machine only (127.0.0.1), and changes nothing. It "
        "shows transactions and listeners of this process, and only the writer of other processes; to see "
        "those of your process, use latchstore.top.serve(store) in it."
    )
    parser.epilog = "From another machine: ssh -L 8765:127.0.0.1:8765 HOST"
    parser.add_argument(
        "target",
        metavar="STORE",
        help="the file of a SqliteStore; the URL of a server (redis://, rediss://, unix://); or "
        "module:name of a store, a cache, or a function that makes one",
    )
    parser.add_argument("--namespace", metavar="NAME", help="namespace of the store on the server")
    parser.add_argument(
        "--port",
        type=int,
        default=_PORT,
        metavar="N",
        help="port number, 0 for any free one; default: %(default)s",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def run(arguments: argparse.Namespace) -> int:
    """Run ``top`` until it is interrupted; return the exit code."""
    return ended("top", f"port {arguments.port}", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    live = open_live(arguments.target, arguments.namespace)
    try:
        with serve(live.store, arguments.port, caches=live.caches) as page:
            print(f"{page.url} shows {arguments.target}; Ctrl-C ends it", flush=True)
            if arguments.open:
                webbrowser.open(page.url)
            threading.Event().wait()
    except KeyboardInterrupt:
        return 0
    finally:
        if live.was_opened:
            live.store.close()
    return 0
