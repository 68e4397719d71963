"""A browser, a worker, and tabs that show the worker's session."""

from collections.abc import Iterator
from typing import Protocol, Unpack

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.conftest import missing
from tests.page.tab import CHROMIUM, LIVE_WITHIN, Tab, TabOptions, launch
from tests.page.worker import Worker
from tests.support.server import ServerProcess


# Not for the whole session: while Playwright runs, no test can have an event loop of its own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        missing("Chromium (Debian: apt-get install chromium)")
    expect.set_options(timeout=LIVE_WITHIN)
    with sync_playwright() as playwright:
        running = launch(playwright)
        yield running
        running.close()


@pytest.fixture
def worker(server: ServerProcess, session: str) -> Iterator[Worker]:
    """A worker of the shared server."""
    working = Worker(server, session)
    yield working
    working.close()


class Visit(Protocol):
    """Opens a tab at the session: of the shared server, or of another one."""

    def __call__(self, of: ServerProcess | None = None, **options: Unpack[TabOptions]) -> Tab: ...


@pytest.fixture
def visit(browser: Browser, server: ServerProcess, session: str) -> Iterator[Visit]:
    """Tabs that look at the session. At the end nothing may have gone wrong in any, and no request may have carried the
    session in its address, or gone anywhere else."""
    tabs: list[Tab] = []
    homes = {"data:", "blob:"}

    def open_tab(of: ServerProcess | None = None, **options: Unpack[TabOptions]) -> Tab:
        tab = Tab(browser, **options)
        tabs.append(tab)
        home = f"http://{(of or server).http_address}/"
        homes.add(home)
        tab.open(f"{home}#session={session}")
        return tab

    yield open_tab
    for tab in tabs:
        tab.close()
        assert tab.faults == []
        assert [address for address in tab.requests if not address.startswith(tuple(homes))] == []
        assert [address for address in tab.requests if session in address.partition("#")[0]] == []
