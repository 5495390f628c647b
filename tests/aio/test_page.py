"""The examples of docs/how-to/asyncio.md and of FastAPI run."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "asyncio.md"


def _examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def _framework(example: str) -> str | None:
    found = re.search(r"^from (starlette|django)", example, flags=re.MULTILINE)
    return None if found is None else found[1]


def test_the_page() -> None:
    examples = [each for each in _examples() if not _framework(each)]
    assert len(examples) == 4
    names: dict[str, Any] = {"__name__": "page"}
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)


@pytest.mark.parametrize("name", ["starlette", "django"])
def test_frameworks(name: str) -> None:
    """In a process of its own, as Django is configured once."""
    pytest.importorskip(name)
    (example,) = [each for each in _examples() if _framework(each) == name]
    subprocess.run([sys.executable, "-c", example], check=True, timeout=60)


def test_the_service() -> None:
    """Twenty requests at once make one page; what is set reaches the stream."""
    pytest.importorskip("fastapi")
    httpx = pytest.importorskip("httpx")
    specification = importlib.util.spec_from_file_location(
        "fastapi_events", ROOT / "examples" / "fastapi_events.py"
    )
    assert specification is not None
    assert specification.loader is not None
    service = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(service)
    app = service.app

    async def main() -> None:
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            assert (await client.get("/prices/tea")).status_code == 404
            following = asyncio.create_task(client.get("/events?last=2"))
            while not app.state.prices.store.stats()["watches"]:
                await asyncio.sleep(0)
            for cents in (250, 300):
                await client.put(f"/prices/tea?cents={cents}")
            answers = await asyncio.gather(*(client.get("/prices/tea") for _ in range(20)))
            made = {answer.json()["made"] for answer in answers}
            assert len(made) == 1
            assert {answer.json()["cents"] for answer in answers} == {300}
            sent = [line for line in (await following).text.splitlines() if line.startswith("data:")]
            assert [json.loads(line.removeprefix("data: "))["cents"] for line in sent] == [250, 300]

    asyncio.run(main())
