"""A job's curve: what the tab has seen, and nothing drawn for what it has not."""

import json
import re
import struct
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from playwright.sync_api import Route, expect

from tests.page.conftest import Visit
from tests.page.worker import Worker
from tests.support.caller import Json

START = datetime(2040, 5, 1, 12, 0, 0, tzinfo=UTC)
"""In a time of its own, so that the page goes by the server's clock."""


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def iso(seconds: float) -> str:
    return at(seconds).isoformat().replace("+00:00", "Z")


def stream(*messages: Json, reason: str) -> bytes:
    """A watch that says this, and then ends for this reason."""
    error = {"code": "unavailable", "details": [{"type": "google.rpc.ErrorInfo", "debug": {"reason": reason}}]}
    frames = [(0, message) for message in messages] + [(2, {"error": error})]
    return b"".join(struct.pack(">BI", flags, len(text)) + text for flags, text in _encoded(frames))


def _encoded(frames: list[tuple[int, Json]]) -> list[tuple[int, bytes]]:
    return [(flags, json.dumps(message).encode()) for flags, message in frames]


def job(job_id: str, progress: int, seconds: float) -> Json:
    """A change of a job that has come so far by then."""
    return {
        "job": {
            "id": job_id,
            "name": "Export patrons",
            "status": "JOB_STATUS_RUNNING",
            "size": "100",
            "progress": str(progress),
            "createTime": iso(0),
            "startTime": iso(0),
            "lastContactTime": iso(seconds),
            "lastProgressTime": iso(seconds),
            "revision": str(progress),
        },
        "resumeToken": "token",
    }


def test_what_came_before_is_not_drawn(visit: Visit, worker: Worker) -> None:
    started = worker.create("Export patrons", size=1000)
    worker.report(started, progress=250)
    tab = visit()
    tab.open_job("Export patrons")
    curve = tab.section("Progress over time")
    expect(curve).to_be_visible()
    line = curve.locator("path.line")
    assert "L" not in (line.get_attribute("d") or "")
    assert curve.locator("path").count() == 2
    worker.report(started, progress=500)
    expect(tab.section("Facts")).to_contain_text("500 of 1,000")
    assert (line.get_attribute("d") or "").count("L") == 1
    # What was over before it was opened has no curve.
    ended = worker.create("Import patrons", size=10)
    worker.report(ended, progress=10)
    tab.page.go_back()
    worker.finish(ended)
    expect(tab.row("Import patrons")).to_contain_text("Completed")
    tab.page.reload()
    tab.open_job("Import patrons")
    expect(tab.section("Facts")).to_be_visible()
    expect(curve).to_be_hidden()


def test_a_time_without_connection_is_left_open(visit: Visit) -> None:
    job_id = "0" * 32
    # The tab sees it at 10 s, at 12 s and then, with a connection again, not before 75 s.
    watches = [
        (12, stream(job(job_id, 10, 10), job(job_id, 20, 12), reason="SHUTTING_DOWN")),
        (80, stream(job(job_id, 90, 75), job(job_id, 95, 79), reason="STREAM_EXPIRED")),
    ]

    def answer(route: Route) -> None:
        if not watches:
            return
        seconds, body = watches.pop(0)
        headers = {"Date": format_datetime(at(seconds), usegmt=True), "Content-Type": "application/connect+json"}
        route.fulfill(status=200, headers=headers, body=body)

    tab = visit(zone="UTC")
    tab.page.route("**/WatchJobs", answer)
    tab.page.reload()
    tab.open_job("Export patrons")
    expect(tab.section("Facts")).to_contain_text("95 of 100")
    curve = tab.section("Progress over time")
    # The connection broke when the browser found that out.
    expect(curve).to_contain_text(
        re.compile(r"Not recorded before 12:00:10, from 12:00:1\d to 12:01:15: this page was")
    )
    tab.picture("curve", whole=True)
    drawn = curve.locator("path.line").get_attribute("d") or ""
    first, second = drawn.removeprefix("M").split("M")
    assert (first.count("L"), second.count("L")) == (1, 1)
    assert curve.locator("g.unseen-times rect").count() == 2
