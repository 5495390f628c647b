"""A Flask service whose threads share a cache: bounded, expiring, invalidated by tag.

Run it with Flask, in a folder with this file:

    python -m pip install flask
    flask --app flask_cache run --port 8000

and then, in another terminal,

    curl http://127.0.0.1:8000/products/pen
    curl http://127.0.0.1:8000/products
    curl -X PUT http://127.0.0.1:8000/products/pen/4
    curl http://127.0.0.1:8000/products/pen
    curl http://127.0.0.1:8000/stats

- A page takes a second to make. However many requests ask for it at once, one thread makes it.
- A new price removes the pages that show it. A page that was being made meanwhile is not kept.
- Evictions are written to the log; ``/stats`` has hits, misses, loads and evictions.

docs/tutorial/cache-in-a-service.md builds such a service step by step. The workers of a server with several
processes share a cache in a file: flask_shared.py.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from flask import Flask, abort

from latchstore import Cache, DictMemoryStore, EventManager, StoreEvictEvent


def create_app(seconds: float = 1.0) -> Flask:
    """Return the application.

    Parameters
    ----------
    seconds : float
        How long it takes to make a page.
    """
    app = Flask(__name__)
    products = DictMemoryStore(EventManager(), indexes=["kind"])
    products.set("pen", (b"", {"kind": "product", "price": 3}))
    products.set("ink", (b"", {"kind": "product", "price": 5}))
    pages: Cache[dict[str, Any]] = Cache(max_entries=1_000, ttl=timedelta(minutes=10))

    def make_page(name: str) -> dict[str, Any]:
        time.sleep(seconds)  # stands for slow queries
        return {"name": name, "price": products.get_metadata(name)["price"]}

    def make_overview(_: str) -> dict[str, Any]:
        time.sleep(seconds)
        return {name: items["price"] for name, items in products.query(kind="product")}

    @app.get("/products/<name>")
    def show(name: str) -> dict[str, Any]:
        try:
            return pages.get_or_load(f"page/{name}", lambda key: make_page(name), tags=[f"product:{name}"])
        except KeyError:  # raised by get_metadata in the loader, and not kept
            abort(404)

    @app.get("/products")
    def overview() -> dict[str, Any]:
        return pages.get_or_load("overview", make_overview, tags=["products"])

    @app.put("/products/<name>/<int:price>")
    def change(name: str, price: int) -> dict[str, Any]:
        products.set(name, (b"", {"kind": "product", "price": price}))
        return {"removed": pages.invalidate_tag(f"product:{name}") + pages.invalidate_tag("products")}

    @app.get("/stats")
    def stats() -> dict[str, Any]:
        return pages.stats()

    def log_eviction(event: StoreEvictEvent) -> None:
        app.logger.warning("%s was evicted: %s", event.key, event.cause)

    pages.store.event_manager.connect(StoreEvictEvent, log_eviction)
    return app
