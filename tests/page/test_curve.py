"""A job's curve: it shows what the tab has received, and gaps where it received nothing."""

import re
from datetime import UTC, datetime, timedelta

from playwright.sync_api import expect

from tests.page.conftest import Visit
from tests.page.played import change, ending, play
from tests.page.worker import Worker
from tests.support.caller import Json

START = datetime(2040, 5, 1, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def progress(done: int, seconds: float) -> Json:
    """How far the job has come by then."""
    return change(
        "0" * 32,
        name="Export patrons",
        size="100",
        progress=str(done),
        createTime=START,
        startTime=START,
        lastContactTime=at(seconds),
        lastProgressTime=at(seconds),
        revision=str(done),
    )


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
    tab = visit(zone="UTC")
    # The tab sees it at 10 s, at 12 s and then, with a connection again, not before 75 s.
    play(
        tab,
        (at(12), ending(progress(10, 10), progress(20, 12), reason="SHUTTING_DOWN")),
        (at(80), ending(progress(90, 75), progress(95, 79))),
    )
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
