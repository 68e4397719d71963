"""Bars move: with a real import, through a kill of the server, and until a reader cancels the job."""

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from examples.marc_import.data import generate
from tests.page.conftest import Visit
from tests.page.tab import Tab
from tests.page.worker import Worker
from tests.support.caller import seconds
from tests.support.server import ServerProcess
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
IMPORT = "Import MARC records"
RECORDS = 12_000
RUNS, RESTS = 0.03, 0.4
"""Seconds that the import works and is stopped in turn: it would be over before a reader has found it."""

NOTE_PERCENTAGES = """() => {
  const meter = document.querySelector("#list .meter");
  window.seen = [Number(meter.getAttribute("aria-valuenow"))];
  new MutationObserver(() => window.seen.push(Number(meter.getAttribute("aria-valuenow"))))
    .observe(meter, { attributeFilter: ["aria-valuenow"] });
}"""


class Import:
    """A real import, in a process of its own that takes its time until it is let go."""

    def __init__(self, server: ServerProcess, session: str, folder: Path) -> None:
        records = generate(folder / "records.mrc", RECORDS)
        environment = {name: text for name, text in os.environ.items() if not name.startswith("HEADWAY_")}
        environment |= {"HEADWAY_TARGET": server.address, "HEADWAY_SESSION": session}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        catalogue = str(folder / "catalogue.db")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "examples.marc_import", "--catalogue", catalogue, str(records)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self._free = threading.Event()
        self._slowing = threading.Thread(target=self._slow_down)
        self._slowing.start()

    def _slow_down(self) -> None:
        while not self._free.wait(RUNS):
            self.process.send_signal(signal.SIGSTOP)
            self._free.wait(RESTS)
            self.process.send_signal(signal.SIGCONT)

    def let_go(self) -> tuple[int, str]:
        """Lets it run to its end; its exit status and what it complained of."""
        self._free.set()
        self._slowing.join()
        _, complaints = self.process.communicate(timeout=60)
        return self.process.returncode, complaints

    def close(self) -> None:
        self._free.set()
        self._slowing.join()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def marc_import(own_server: ServerProcess, session: str, tmp_path: Path) -> Iterator[Import]:
    running = Import(own_server, session, tmp_path)
    yield running
    running.close()


def percentage(tab: Tab) -> int:
    return int(tab.row(IMPORT).get_by_role("progressbar").get_attribute("aria-valuenow") or 0)


def test_an_import_outlives_its_server_and_the_page_follows(
    visit: Visit, own_server: ServerProcess, marc_import: Import
) -> None:
    tab = visit(own_server)
    expect(tab.row(IMPORT)).to_contain_text("Running")
    tab.page.evaluate(NOTE_PERCENTAGES)
    before = percentage(tab)
    until(lambda: percentage(tab) > before)
    expect(tab.row(IMPORT)).to_contain_text(f"of {RECORDS:,} records")
    own_server.kill()
    expect(tab.page.locator("#banner")).to_contain_text("The server does not answer. This is as of")
    assert percentage(tab) >= before
    tab.picture("away")
    own_server.start()
    expect(tab.page.locator("#banner")).to_be_empty()
    expect(tab.page.locator("#connection")).to_have_text("Live")
    there = percentage(tab)
    until(lambda: percentage(tab) > there)
    assert marc_import.let_go()[0] == 0
    expect(tab.row(IMPORT)).to_contain_text("Completed")
    expect(tab.row(IMPORT)).to_contain_text(f"{RECORDS:,} of {RECORDS:,} records")
    expect(tab.row(IMPORT)).to_contain_text("added 11,880")
    expect(tab.row(IMPORT)).to_contain_text("120 record errors")
    seen = tab.page.evaluate("window.seen")
    assert seen == sorted(seen)
    assert seen[-1] == 100
    assert tab.rows().count() == 1


def test_a_reader_cancels_and_the_worker_stops(visit: Visit, own_server: ServerProcess, marc_import: Import) -> None:
    tab = visit(own_server)
    tab.open_job(IMPORT)
    expect(tab.page.locator(".job-page")).to_contain_text("Running")
    tab.page.get_by_role("button", name="Cancel this job").click()
    dialog = tab.page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"Cancel “{IMPORT}”?")
    dialog.get_by_label("Reason").fill("wrong file")
    dialog.get_by_label("Time to stop").select_option("10 minutes")
    tab.picture("cancel")
    dialog.get_by_role("button", name="Cancel the job").click()
    expect(dialog).to_be_hidden()
    status, complaints = marc_import.let_go()
    assert status == 1
    assert "wrong file" in complaints
    expect(tab.page.locator(".head")).to_contain_text("Cancelled")
    expect(tab.page.get_by_role("button", name="Cancel this job")).to_be_hidden()
    expect(tab.section("History")).to_contain_text("Cancelled")


def test_a_cancellation_request_is_shown_until_the_worker_ends_the_job(visit: Visit, worker: Worker) -> None:
    job = worker.create("Send reminders", size=10)
    tab = visit()
    tab.open_job("Send reminders")
    tab.page.get_by_role("button", name="Cancel this job").click()
    tab.page.get_by_label("Reason").fill("wrong letterhead")
    tab.page.get_by_role("button", name="Cancel the job").click()
    expect(tab.page.locator(".head .warning")).to_contain_text("to be cancelled within")
    expect(tab.page.locator(".head .warning")).to_contain_text("wrong letterhead")
    request = worker.report(job).cancellation
    assert (request.requested, request.reason) == (True, "wrong letterhead")
    worker.fail(job, "cancelled: wrong letterhead", code=1)
    expect(tab.page.locator(".head")).to_contain_text("Cancelled")
    expect(tab.page.locator(".head")).to_contain_text("cancelled: wrong letterhead")


def test_a_cancel_that_comes_too_late_says_so(visit: Visit, worker: Worker) -> None:
    job = worker.create("Send reminders")
    tab = visit()
    tab.open_job("Send reminders")
    tab.page.get_by_role("button", name="Cancel this job").click()
    worker.finish(job)
    tab.page.get_by_role("button", name="Cancel the job").click()
    expect(tab.page.get_by_role("alert").filter(has_text="ended")).to_be_visible()
    tab.page.get_by_role("button", name="Keep running").click()
    expect(tab.page.get_by_role("dialog")).to_be_hidden()


def test_what_happens_arrives_by_itself(visit: Visit, worker: Worker) -> None:
    tab = visit()
    expect(tab.page.get_by_text("No jobs in this session yet.")).to_be_visible()
    job = worker.create("Export patrons", invoker="alice", size=200, unit="patrons")
    expect(tab.row("Export patrons")).to_contain_text("0 of 200 patrons")
    expect(tab.row("Export patrons")).to_contain_text("alice")
    worker.report(job, progress=50, message="branch CPL", counters={"written": 48})
    for words in ("50 of 200 patrons", "25 %", "branch CPL", "written 48"):
        expect(tab.row("Export patrons")).to_contain_text(words)
    assert len([address for address in tab.requests if address.endswith("/WatchJobs")]) == 1
    worker.finish(job)
    expect(tab.row("Export patrons")).to_contain_text("Completed")
    worker.clear(job)
    expect(tab.row("Export patrons")).to_have_count(0)


def test_who_is_lost_or_stalled_is_plain_to_see(visit: Visit, worker: Worker) -> None:
    tab = visit()
    lost = worker.create("Merge authorities", size=10, heartbeat_timeout=seconds(1))
    stalled = worker.create("Fetch covers", size=10, stall_timeout=seconds(1))
    for job in (lost, stalled):
        worker.report(job, progress=4)
    expect(tab.row("Merge authorities")).to_contain_text("no contact for")

    def has_stalled() -> bool:
        worker.report(stalled)
        return "Stalled" in tab.row("Fetch covers").inner_text()

    until(has_stalled)
    expect(tab.row("Fetch covers")).to_contain_text("no progress for")
    tab.filter("Need attention")
    expect(tab.names()).to_have_text(["Merge authorities", "Fetch covers"])
    worker.report(lost, progress=5)
    expect(tab.row("Merge authorities")).to_have_count(0)
    tab.filter("All")
    expect(tab.row("Merge authorities")).to_contain_text("Running")


def ended_stream(error: dict[str, object]) -> bytes:
    """What a stream that ended with this error looks like."""
    end = json.dumps({"error": error}).encode()
    return struct.pack(">BI", 2, len(end)) + end


def refuse_once(tab: Tab, error: dict[str, object], *, resumed: bool) -> list[str]:
    """Has the next watch end with this error, of those with a resume token or those without; the bodies of all watches
    are in the list that it gives."""
    bodies: list[str] = []
    refused = False

    def answer(route: Route) -> None:
        nonlocal refused
        bodies.append(route.request.post_data or "")
        if refused or ("resumeToken" in bodies[-1]) is not resumed:
            route.continue_()
            return
        refused = True
        route.fulfill(status=200, content_type="application/connect+json", body=ended_stream(error))

    tab.page.route("**/WatchJobs", answer)
    return bodies


def test_a_watch_that_ends_by_itself_is_taken_up_without_a_word(visit: Visit, worker: Worker) -> None:
    job = worker.create("Export patrons", size=4)
    tab = visit()
    expect(tab.row("Export patrons")).to_be_visible()
    details = [{"type": "google.rpc.ErrorInfo", "debug": {"reason": "STREAM_EXPIRED"}}]
    refuse_once(tab, {"code": "unavailable", "message": "later", "details": details}, resumed=False)
    tab.page.reload()
    expect(tab.row("Export patrons")).to_be_visible()
    worker.report(job, progress=1)
    expect(tab.row("Export patrons")).to_contain_text("25 %")
    expect(tab.page.locator("#banner")).to_be_empty()


def test_after_too_long_a_while_all_jobs_come_anew(visit: Visit, own_server: ServerProcess, session: str) -> None:
    worker = Worker(own_server, session)
    gone, kept = worker.create("Cleared meanwhile"), worker.create("Kept")
    tab = visit(own_server)
    expect(tab.rows()).to_have_count(2)
    details = [{"type": "google.rpc.ErrorInfo", "debug": {"reason": "RESUME_TOKEN_EXPIRED"}}]
    error: dict[str, object] = {"code": "failed_precondition", "message": "watch anew", "details": details}
    bodies = refuse_once(tab, error, resumed=True)
    own_server.kill()
    expect(tab.page.locator("#banner")).not_to_be_empty()
    # Its removal is something that the server is then said to have forgotten.
    own_server.start()
    worker.clear(gone)
    worker.report(kept, progress=7)
    expect(tab.row("Kept")).to_contain_text("7")
    expect(tab.rows()).to_have_count(1)
    assert "resumeToken" not in bodies[-1]
    worker.close()


def test_a_tab_that_nobody_sees_gives_its_connection_back(visit: Visit, worker: Worker) -> None:
    job = worker.create("Export patrons", size=4)
    tab = visit()
    tab.page.clock.install()
    tab.page.reload()
    expect(tab.row("Export patrons")).to_be_visible()
    ended: list[str] = []
    tab.page.on("requestfailed", lambda request: ended.append(request.url))
    hide = """hidden => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    tab.page.evaluate(hide, True)
    tab.page.clock.run_for(70_000)
    until(lambda: any(address.endswith("/WatchJobs") for address in ended))
    worker.report(job, progress=1)
    tab.page.clock.run_for(1000)
    expect(tab.row("Export patrons")).to_contain_text("0 %")
    tab.page.evaluate(hide, False)
    tab.page.clock.run_for(1000)
    expect(tab.row("Export patrons")).to_contain_text("25 %")
    expect(tab.page.locator("#banner")).to_be_empty()
