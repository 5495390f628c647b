"""A shop whose threads share a store, and a page that shows its activity.

    python examples/live_page.py

Open the address that it prints. One thread takes orders, which are put into a work queue in the same
transaction; two workers send them; a cache has the products; once in a while a report keeps all writers
waiting, and you see for whom they wait. Ctrl-C ends it.
"""

# ruff: noqa: S311 (random numbers are no secrets here)

from __future__ import annotations

import argparse
import random
import threading
from typing import Any

from latchstore import Cache, DictMemoryStore, EventManager, StoreSetEvent, WorkQueue, top


class Shop:
    """What the threads share, and what each of them does until the shop is closed."""

    def __init__(self) -> None:
        self.store = DictMemoryStore(EventManager(), indexes=["state"], history=1_000)
        self.products = Cache[dict[str, Any]](max_entries=200, ttl=30)
        self.parcels = WorkQueue[dict[str, Any]](self.store, "parcels", max_attempts=2)
        self.closed = threading.Event()
        self.store.event_manager.connect(StoreSetEvent, self.write_to_the_books)

    def write_to_the_books(self, event: StoreSetEvent) -> None:
        """Take some milliseconds for each change, as what writes to a disk would; a listener of the store."""
        self.closed.wait(0.002)

    def take_orders(self) -> None:
        number = 0
        while not self.closed.wait(random.uniform(0.05, 0.3)):
            number += 1
            product = f"product:{int(random.paretovariate(0.7)) % 500}"
            order = f"order:{number:05}"
            self.products.get_or_load(product, lambda key: {"name": key, "price": len(key)})
            with self.store.transaction("order"):
                self.store.set(order, (b"{}", {"state": "new", "product": product}))
                self.parcels.put({"order": order}, key=order)

    def send(self) -> None:
        for job in self.parcels:
            with job:
                self.closed.wait(random.uniform(0.1, 0.4))
                if random.random() < 0.1:
                    raise OSError("the address is unknown")
                with self.store.transaction("sent"):
                    self.store.update_metadata(job.payload["order"], {"state": "sent"})
                    job.ack()

    def work(self) -> None:
        while not self.parcels.closed:
            try:
                self.send()
            except OSError:
                continue  # the job is tried again, or is a dead letter by now

    def report(self) -> None:
        """Keep all other writers out for seconds: what one sees on the page."""
        while not self.closed.wait(6):
            with self.store.transaction("monthly report"):
                sent = sum(1 for _ in self.store.query_keys(state="sent"))
                self.closed.wait(3)
                self.store.set("report", (b"", {"sent": sent}))

    def clean_up(self) -> None:
        while not self.closed.wait(5):
            for key in list(self.store.query_keys(state="sent", order_by="created", limit=10)):
                self.store.delete(key)

    def run(self, port: int) -> None:
        bodies = (self.take_orders, self.work, self.work, self.report, self.clean_up)
        threads = [threading.Thread(target=each, name=each.__name__) for each in bodies]
        with self.store, top.serve(self.store, port, caches={"products": self.products}) as page:
            for thread in threads:
                thread.start()
            try:
                print(f"{page.url} shows the shop; Ctrl-C closes it", flush=True)
                self.closed.wait()
            except KeyboardInterrupt:
                pass
            finally:
                self.closed.set()
                self.parcels.close(immediate=True)
                for thread in threads:
                    thread.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a shop, and a page that shows its store")
    parser.add_argument("--port", type=int, default=8765, help="of the page; 0 for any; default: %(default)s")
    Shop().run(parser.parse_args().port)
