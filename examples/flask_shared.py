"""A Flask application whose gunicorn workers share data, a cache with tags, and a work queue.

There is no server beside it: each process opens the same two files. Try it from a checkout:

    python -m pip install '.[flask]' gunicorn
    export FLASK_PLACE=/tmp/shop && mkdir -p $FLASK_PLACE
    gunicorn --chdir examples --workers 4 'flask_shared:create_app()' &
    flask --app examples/flask_shared.py work &

    curl -X PUT localhost:8000/products/pen -H 'Content-Type: application/json' -d '{"price": 3}'
    curl localhost:8000/products/pen
    curl localhost:8000/mails

- A page that is not in the cache is made once, whichever workers are asked for it at the same time: the
  others wait for the one that makes it.
- A change of a product removes its pages for all workers. No worker that is asked after that shows an old
  one.
- The change and the job to tell of it are one commit: there is a mail for each price, and for no other.
- A process that is killed takes nothing with it but what it was at: a page is made by another one, and a job
  whose worker was killed is done when its lease is over.

For workers on more than one machine the same is kept by a Redis or Valkey server: FLASK_PLACE is its URL, as
redis://host:6379/0, `pip install '.[redis]'`, and the last line of `open_store` becomes

    return latchstore.RedisStore(place, EventManager(), namespace=name, indexes=indexes)
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, jsonify, request

import latchstore
from latchstore import Cache, EventManager, Job, WorkQueue


def open_store(place: str, name: str, indexes: Sequence[str] = ()) -> Any:
    """Open a store that processes share."""
    return latchstore.SqliteStore(Path(place) / name, EventManager(), indexes=indexes)


class Shop:
    """What all processes share; each of them has one.

    Parameters
    ----------
    place : str
        Where the stores are: a folder on a disk of this machine.
    seconds : float
        How long it takes to make a page.
    """

    def __init__(self, place: str, seconds: float) -> None:
        self.store = open_store(place, "shop", ["kind"])
        self.queue: WorkQueue[dict[str, Any]] = WorkQueue(self.store, "mails")
        # Pages have a store of their own, as a full cache evicts whatever is there.
        pages = open_store(place, "pages")
        self.pages: Cache[dict[str, Any]] = Cache(pages, codec="json", max_entries=10_000, ttl=600)
        self._seconds = seconds

    def page(self, name: str) -> dict[str, Any]:
        """Return the page of a product; KeyError if there is none."""
        return self.pages.get_or_load(name, self._make_page, tags=[f"product:{name}"])

    def _make_page(self, name: str) -> dict[str, Any]:
        price = self.store.get_metadata(f"product/{name}")["price"]
        time.sleep(self._seconds)  # what makes it worth a cache
        return {"name": name, "price": price, "made_by": os.getpid(), "made_at": time.time_ns()}

    def set_price(self, name: str, price: float) -> None:
        """Change a product, and have its followers be told."""
        with self.store.transaction(f"price of {name}"):
            self.store.set(f"product/{name}", (b"", {"kind": "product", "price": price}))
            self.queue.put({"product": name, "price": price})
        self.pages.invalidate_tag(f"product:{name}")

    def send(self, job: Job[dict[str, Any]]) -> None:
        """Do a job. The mail and the end of the job are one commit."""
        mail = {"kind": "mail", **job.payload, "sent_by": os.getpid()}
        with self.store.transaction("a mail"):
            self.store.set(f"mail/{job.key}", (b"", mail))
            job.ack()

    def mails(self) -> list[dict[str, Any]]:
        """Return the mails that were sent."""
        return [items for _, items in self.store.query(kind="mail", order_by="created")]


def create_app() -> Flask:
    """Return the application; gunicorn calls it, before or after it has forked its workers."""
    app = Flask(__name__)
    app.config.from_prefixed_env()  # FLASK_PLACE, FLASK_SECONDS
    shop = Shop(app.config["PLACE"], app.config.get("SECONDS", 1.0))

    @app.get("/products/<name>")
    def show(name: str) -> Response:
        try:
            page = shop.page(name)
        except KeyError:
            abort(404)
        loads = shop.pages.stats()["loads"]  # by this worker
        return jsonify({**page, "served_by": os.getpid(), "loads": loads})

    @app.put("/products/<name>")
    def change(name: str) -> Response:
        shop.set_price(name, request.get_json()["price"])
        return jsonify({"served_by": os.getpid()})

    @app.get("/mails")
    def mails() -> Response:
        return jsonify(shop.mails())

    @app.cli.command("work")
    def work() -> None:
        """Send mails, with four threads, until Ctrl-C."""
        shop.queue.run(shop.send, threads=4, lease=30, until_empty=False)

    return app
