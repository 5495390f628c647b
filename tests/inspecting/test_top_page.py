"""The page of ``latchstore.top`` in a browser: what it shows, live, and when the server or the store goes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, StoreEvent, StoreSetEvent, WorkQueue, top
from tests.inspecting.browser import CHROMIUM, TIMEOUT, Browser
from tests.schedules import Actor

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")

STATUS = "document.getElementById('status').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager()) as store:
        yield store


def rows(browser: Browser, table: str) -> list[list[str]]:
    """Return the texts of a table."""
    found: list[list[str]] = browser.evaluate(
        f"[...document.querySelectorAll('#{table} tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return found


def text_of(browser: Browser, place: str) -> str:
    return str(browser.evaluate(f"document.getElementById('{place}').textContent"))


def test_what_goes_on_is_shown_live(browser: Browser, store: DictMemoryStore) -> None:
    called, go_on = threading.Event(), threading.Event()

    def slow(event: StoreEvent) -> None:
        called.set()
        go_on.wait(TIMEOUT)

    cache = Cache[int](max_entries=10)
    cache["a"] = 1
    WorkQueue(store, "mails").put({})
    store.event_manager.connect(StoreSetEvent, slow, filter={"key": "slow"})
    with top.serve(store, caches={"pages": cache}, interval=0.1) as page, Actor(store, "teller") as teller:
        browser.open(page.url)
        browser.until(f"{STATUS} === 'live'")
        store.set("user:1", (b"123", {"state": "new"}))
        browser.until("document.querySelector('#changes li')?.textContent.includes('user:1')")
        shown = browser.evaluate("document.querySelector('#changes li').textContent")
        assert "set" in shown
        assert "3 B" in shown
        assert "{'state': 'new'}" in shown
        store.from_bytes("slow", b"")
        assert called.wait(TIMEOUT)
        browser.until("!document.getElementById('calling').hidden")
        assert "slow" in text_of(browser, "calling")
        teller.begin("pay")
        other = threading.Thread(target=store.from_bytes, args=("late", b""), name="other")
        other.start()
        browser.until("!document.getElementById('waiting').hidden")
        assert "transaction 'pay'" in text_of(browser, "writer")
        assert rows(browser, "waiting")[0][:2] == ["other", "from_bytes"]
        assert rows(browser, "transactions")[0][0] == "pay"
        assert rows(browser, "caches")[0][:2] == ["pages", "1 of 10"]
        assert rows(browser, "queues")[0][:2] == ["mails", "1"]
        go_on.set()
        teller.commit()
        other.join(TIMEOUT)
        browser.until("document.getElementById('waiting').hidden")
        browser.until("document.querySelector('#listeners tbody').textContent.includes('slow')")
        assert text_of(browser, "keys") == "4"
    assert browser.complaints == []


def test_what_a_store_holds_is_text(browser: Browser, store: DictMemoryStore) -> None:
    evil = "<script>document.title='evil'</script><img src=x onerror=\"document.title='evil'\">"
    queue = WorkQueue(store, "<b>queue")
    queue.put({})
    with top.serve(store, caches={"<i>cache": Cache[int]()}, interval=0.1) as page:
        browser.open(page.url)
        browser.until(f"{STATUS} === 'live'")
        with store.transaction(evil):
            store.set(evil, (b"", {"<u>name": evil}))
        browser.until("document.querySelector('#changes .transaction')?.textContent.includes('<script>')")
        assert evil in browser.text()
        browser.until("document.querySelector('#queues tbody').textContent.includes('<b>queue')")
        assert "<i>cache" in browser.text()
        tags = "main script, main img, main i, main u"
        assert browser.evaluate(f"document.querySelectorAll('{tags}').length") == 0
        assert browser.evaluate("document.title") == "latchstore top"
    assert browser.complaints == []


def test_a_server_that_goes_and_comes_back(browser: Browser, store: DictMemoryStore) -> None:
    with top.serve(store, interval=0.1) as page:
        port = urlsplit(page.url).port
        browser.open(page.url)
        browser.until(f"{STATUS} === 'live'")
        store.from_bytes("before", b"")
        browser.until("document.getElementById('changes').textContent.includes('before')")
    browser.until(f"{STATUS}.startsWith('disconnected')")
    assert port is not None
    with top.serve(store, port, interval=0.1):
        browser.until(f"{STATUS} === 'live'")
        store.from_bytes("after", b"")
        browser.until("document.getElementById('changes').textContent.includes('after')")
        assert "before" not in text_of(browser, "changes")


def test_a_store_that_is_closed(browser: Browser, store: DictMemoryStore) -> None:
    with top.serve(store, interval=0.1) as page:
        browser.open(page.url)
        browser.until(f"{STATUS} === 'live'")
        store.close()
        browser.until(f"{STATUS} === 'store closed'")
        store.connect()
        browser.until(f"{STATUS} === 'live'")


def test_pausing_and_filtering(browser: Browser, store: DictMemoryStore) -> None:
    with top.serve(store, interval=0.1) as page:
        browser.open(page.url)
        browser.until(f"{STATUS} === 'live'")
        browser.evaluate("document.getElementById('pause').click()")
        store.multiset_data(["user:1", "order:1"], [b"", b""])
        browser.until("document.getElementById('pause').textContent === 'Go on (2 new)'")
        assert browser.evaluate("document.querySelectorAll('#changes li').length") == 0
        browser.evaluate("document.getElementById('pause').click()")
        assert browser.evaluate("document.querySelectorAll('#changes li').length") == 2
        browser.evaluate(
            "(() => { const field = document.getElementById('filter'); field.value = 'user';"
            " field.dispatchEvent(new Event('input')); })()"
        )
        assert "order:1" not in browser.text()
        assert "user:1" in browser.text()


def test_no_more_changes_are_kept_than_200(browser: Browser, store: DictMemoryStore) -> None:
    with top.serve(store, interval=0.1) as page:
        browser.open(page.url)
        browser.until(f"{STATUS} === 'live'")
        for part in range(4):
            for number in range(100):
                store.from_bytes(f"{part}:{number}", b"")
            browser.until(f"document.getElementById('changes').textContent.includes('{part}:99')")
        assert browser.evaluate("document.querySelectorAll('#changes li').length") <= 200


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits(browser: Browser, store: DictMemoryStore, width: int, dark: bool) -> None:
    store.set("k" * 150, (b"", {"text": "x" * 80}))
    WorkQueue(store, "q" * 60).put({})
    with top.serve(store, caches={"c" * 60: Cache[int](store)}, interval=0.1) as page:
        browser.show_as(width, 900, dark=dark)
        browser.open(page.url)
        browser.until(f"{STATUS} === 'live'")
        store.set("k" * 150, (b"", {"text": "x" * 80}))
        browser.until("document.querySelectorAll('#changes li').length > 0")
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        red = int(background.removeprefix("rgb(").partition(",")[0])
        assert (red < 128) == dark
        assert browser.screenshot().startswith(b"\x89PNG")
