"""A FastAPI service: a cache that all requests share, and a page that follows the store as it changes.

Run it with

    python -m pip install fastapi uvicorn
    uvicorn fastapi_events:app

and then, in two terminals,

    curl -N localhost:8000/events
    curl -X PUT 'localhost:8000/prices/tea?cents=250'
    curl localhost:8000/prices/tea

The second line appears in the first terminal. The third one is answered from the cache until the price
changes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from latchstore import Cache, DictMemoryStore, EventManager, EventsLost
from latchstore.aio import AsyncCache, AsyncStore

#: How often a page was made, to show that a cache is there.
pages_made = 0


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the store before the first request, and close it after the last one."""
    async with AsyncStore(DictMemoryStore(EventManager())) as prices:
        app.state.prices = prices
        app.state.pages = AsyncCache(Cache(max_entries=1_000, ttl=60))
        yield


app = FastAPI(lifespan=lifespan)


@app.put("/prices/{name}")
async def set_price(name: str, cents: int) -> dict[str, int]:
    """Set a price; the page that shows it is made anew when it is next asked for."""
    await app.state.prices.set(name, (b"", {"cents": cents}))
    await app.state.pages.delete(name)
    return {"cents": cents}


@app.get("/prices/{name}")
async def show_price(name: str) -> dict[str, object]:
    """Show a price, from the cache: however many requests come at once, the page is made once."""

    async def make(name: str) -> dict[str, object]:
        global pages_made
        pages_made += 1
        metadata = await app.state.prices.get_metadata(name)
        await asyncio.sleep(0.01)  # what takes long
        return {"name": name, "cents": metadata["cents"], "made": pages_made}

    try:
        page: dict[str, object] = await app.state.pages.get_or_load(name, make)
    except KeyError:
        raise HTTPException(404, f"no price of {name}") from None
    return page


@app.get("/events")
async def follow_prices(last: int = 0) -> StreamingResponse:
    """Send each change as a server-sent event, whose id is the revision of its commit.

    Parameters
    ----------
    last : int
        How many events to send before the end; 0 for as long as the client stays.
    """
    changes = app.state.prices.watch()

    async def lines() -> AsyncIterator[str]:
        yield ": the prices from now on\n\n"
        sent = 0
        async with changes:
            async for change in changes:
                if isinstance(change, EventsLost):
                    yield "event: lost\ndata: {}\n\n"
                    continue
                data = json.dumps({"name": change.key, **change.metadata})
                yield f"id: {change.revision}\nevent: {change.action}\ndata: {data}\n\n"
                sent += 1
                if sent == last:
                    return

    return StreamingResponse(lines(), media_type="text/event-stream")
