"""<headway-job> in a page of another origin."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.page.tab import Tab
from tests.page.worker import Worker
from tests.support.server import ServerProcess

HOST_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Staff</title>
<style>
  body {{ font: 16px sans-serif; max-width: 50rem; margin: 2rem auto }}
  headway-job {{ --headway-running: #7a1fa2; margin-top: 1rem }}
</style>
<script type="module" src="{headway}/headway-job.js"></script></head>
<body><h1>Staging</h1>{jobs}<p id="said"></p>
<script>
  addEventListener("headway-ended", event => document.getElementById("said").textContent = event.detail.status);
</script>
</body></html>"""


class StaffPages:
    """A web server of the library's own, with one page."""

    def __init__(self) -> None:
        pages = self
        self.page = ""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = pages.page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def staff() -> Iterator[StaffPages]:
    pages = StaffPages()
    yield pages
    pages.close()


@pytest.fixture
def headway(staff: StaffPages, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that the library's pages may call."""
    with ServerProcess(tmp_path, "--http-origins", staff.address) as running:
        yield running


@pytest.fixture
def embedded(browser: Browser, staff: StaffPages, headway: ServerProcess) -> Iterator[Callable[[str], Tab]]:
    """Opens the library's page with these elements in it."""
    tabs: list[Tab] = []

    def embed(jobs: str) -> Tab:
        staff.page = HOST_PAGE.format(headway=f"http://{headway.http_address}", jobs=jobs)
        tab = Tab(browser)
        tabs.append(tab)
        tab.open(staff.address)
        return tab

    yield embed
    for tab in tabs:
        tab.close()
        assert tab.faults == []


def element(session: str, job: str) -> str:
    return f'<headway-job session="{session}" job="{job}"></headway-job>'


def test_a_job_in_a_staff_page(embedded: Callable[[str], Tab], headway: ServerProcess, session: str) -> None:
    worker = Worker(headway, session)
    jobs = [worker.create(f"Stage file {n}", size=10, unit="records") for n in range(2)]
    worker.create("Not asked for")
    tab = embedded("".join(element(session, job) for job in jobs))
    bar = tab.page.get_by_role("progressbar", name="Stage file 0")
    expect(bar).to_have_attribute("aria-valuetext", "Running, 0 %, 0 of 10 records")
    worker.report(jobs[0], progress=4)
    expect(bar).to_have_attribute("aria-valuetext", "Running, 40 %, 4 of 10 records")
    expect(tab.page.locator("body")).not_to_contain_text("Not asked for")
    colour = bar.locator(".fill").evaluate("element => getComputedStyle(element).backgroundColor")
    assert colour == "rgb(122, 31, 162)"
    # Both look through one stream.
    assert len([address for address in tab.requests if address.endswith("/WatchJobs")]) == 1
    tab.picture("element")
    worker.finish(jobs[0])
    expect(tab.page.locator("#said")).to_have_text("COMPLETED")
    headway.kill()
    expect(tab.page.get_by_text("The server does not answer; trying again…").first).to_be_visible()
    headway.start()
    worker.report(jobs[1], progress=9)
    expect(tab.page.get_by_role("progressbar", name="Stage file 1")).to_have_attribute("aria-valuenow", "90")
    expect(tab.page.get_by_text("The server does not answer")).to_have_count(0)
    worker.close()


def test_a_job_that_is_not_there(embedded: Callable[[str], Tab], session: str) -> None:
    tab = embedded(element(session, "0" * 32) + element(session, "nonsense"))
    expect(tab.page.get_by_text("no such job", exact=False)).to_be_visible()
    expect(tab.page.get_by_text("32 lower-case", exact=False)).to_be_visible()


def test_a_job_that_is_removed(embedded: Callable[[str], Tab], headway: ServerProcess, session: str) -> None:
    worker = Worker(headway, session)
    job = worker.create("Stage file", size=10, unit="records")
    tab = embedded(element(session, job))
    expect(tab.page.get_by_role("progressbar", name="Stage file")).to_be_visible()
    worker.clear(job)
    expect(tab.page.get_by_text("This job was removed.")).to_be_visible()
    expect(tab.page.get_by_role("progressbar")).to_have_count(0)
    worker.close()


def test_a_page_that_the_server_was_not_told_of(
    browser: Browser, staff: StaffPages, server: ServerProcess, session: str
) -> None:
    staff.page = HOST_PAGE.format(headway=f"http://{server.http_address}", jobs=element(session, "0" * 32))
    tab = Tab(browser)
    tab.open(staff.address)
    expect(tab.page.get_by_role("heading", name="Staging")).to_be_visible()
    assert not tab.page.evaluate("Boolean(customElements.get('headway-job'))")
    tab.close()
