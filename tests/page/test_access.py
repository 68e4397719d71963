"""Accessibility: keyboard, screen readers, phones, dark mode and reduced motion."""

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from headway.v1 import job_pb2
from tests.page.conftest import Visit
from tests.page.tab import Tab
from tests.page.worker import Worker
from tests.support.caller import seconds, struct
from tests.support.waiting import until

FOCUSED = "document.activeElement.textContent"


@pytest.fixture
def all_kinds(worker: Worker) -> Iterator[str]:
    """A job of each kind; the id of one that runs, with all that a job can have."""
    full = worker.create("Stage MARC records: Hathi, part 3", invoker="kirsten", size=48_000, unit="records")
    errors = [job_pb2.RecordError(record=f"ocm{n:05}", code="BAD_008", message="008 is too short") for n in range(40)]
    worker.report(full, part="hathi-3a", progress=14_000, message="hathi-3a.mrc, record 14000", record_errors=errors)
    worker.report(full, part="hathi-3b", progress=9_500, counters={"added": 20_100, "updated": 3_340, "skipped": 60})
    worker.report(full, variables=struct({"file": "hathi-3b.mrc", "offset": 9500}))
    worker.report(worker.create("Crawl the repository", invoker="harvester", unit="pages"), progress=200)
    lost = worker.create("Merge authorities", size=5000, unit="authorities", heartbeat_timeout=seconds(1))
    worker.report(lost, progress=1890)
    worker.create("Reindex holdings", invoker="jan", size=90_000, unit="items", pending=True)
    done = worker.create("Import the Library of Congress, 2016", size=1200, unit="records")
    worker.report(done, progress=1200, counters={"added": 1200})
    worker.finish(done, {"added": 1200, "batch": {"id": 12}})
    failed = worker.create("Export patrons", invoker="cron", size=40_000, unit="patrons")
    worker.report(failed, progress=12_345)
    worker.fail(failed, "No space left on device: patrons.csv")
    until(lambda: worker.get(lost).status == job_pb2.JOB_STATUS_LOST)
    yield full


def faults(tab: Tab) -> list[str]:
    """What axe finds wrong with what is shown now."""
    found = Axe().run(tab.page).response["violations"]
    return [f"{each['impact']}: {each['id']}: {node['html'][:160]}" for each in found for node in each["nodes"]]


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_axe_finds_no_fault(visit: Visit, all_kinds: str, look: str) -> None:
    tab = visit(dark=look == "dark", phone=look == "phone")
    expect(tab.rows()).to_have_count(6)
    tab.picture(f"list-{look}")
    assert faults(tab) == []
    tab.open_job("Stage MARC records: Hathi, part 3")
    expect(tab.section("Record errors").locator("tbody tr")).to_have_count(40)
    expect(tab.section("Variables")).to_be_visible()
    tab.picture(f"job-{look}", whole=True)
    assert faults(tab) == []
    tab.page.get_by_role("button", name="Cancel this job").click()
    tab.picture(f"cancel-{look}")
    assert faults(tab) == []
    tab.page.keyboard.press("Escape")
    tab.page.get_by_role("button", name="Switch session").click()
    assert faults(tab) == []


def test_on_a_phone_nothing_is_cut_off(visit: Visit, all_kinds: str) -> None:
    tab = visit(phone=True)
    expect(tab.rows()).to_have_count(6)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert tab.page.evaluate(overflow) == 0
    for control in tab.page.locator("button:visible, select:visible, input[type=search]:visible, #list a").all():
        box = control.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    tab.open_job("Stage MARC records: Hathi, part 3")
    expect(tab.section("Variables")).to_be_visible()
    assert tab.page.evaluate(overflow) == 0


WORDS_IN_LINES = """cells => cells.map(cell => {
  const words = [];
  for (const found of cell.textContent.matchAll(/\\S+/g)) {
    const range = document.createRange();
    range.setStart(cell.firstChild, found.index);
    range.setEnd(cell.firstChild, found.index + found[0].length);
    if (range.getClientRects().length > 1) words.push(found[0]);
  }
  return words;
}).flat()"""


def test_a_table_on_a_phone_wraps_by_word(visit: Visit, worker: Worker) -> None:
    job = worker.create("Stage MARC records")
    message = "the leader says that the record has 02105 bytes, and the directory ends at byte 01988"
    endless = "x" * 200
    errors = [
        job_pb2.RecordError(record="hathi.umn.31951d004", code="BAD_LEADER_LENGTH", message=message),
        job_pb2.RecordError(record="ocm00001", message=endless),
    ]
    worker.report(job, record_errors=errors)
    tab = visit(phone=True)
    tab.open_job("Stage MARC records")
    section = tab.section("Record errors")
    rows = section.get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.nth(1).get_by_role("cell")).to_have_text(["1", "hathi.umn.31951d004", "BAD_LEADER_LENGTH", message])
    assert section.locator("td").evaluate_all(WORDS_IN_LINES) == [endless]
    region = section.get_by_role("region")
    assert region.evaluate("element => element.scrollWidth - element.clientWidth") == 0
    assert tab.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    tab.picture("errors-phone", whole=True)
    assert faults(tab) == []


def test_all_of_it_by_keyboard(visit: Visit, worker: Worker) -> None:
    jobs = [worker.create(f"Job {n}", size=10) for n in range(3)]
    tab = visit()
    expect(tab.rows()).to_have_count(3)
    press = tab.page.keyboard.press
    tab.page.get_by_label("Sort by").focus()
    press("Tab")
    assert tab.page.evaluate(FOCUSED) == "Job 0"
    press("ArrowDown")
    assert tab.page.evaluate(FOCUSED) == "Job 1"
    press("End")
    assert tab.page.evaluate(FOCUSED) == "Job 2"
    # The row moves to the end of what goes on, and the keyboard stays with it.
    worker.finish(jobs[0])
    expect(tab.names()).to_have_text(["Job 1", "Job 2", "Job 0"])
    assert tab.page.evaluate(FOCUSED) == "Job 2"
    press("Enter")
    expect(tab.page.get_by_role("heading", name="Job 2", level=1)).to_be_focused()
    press("Tab")
    assert tab.page.evaluate(FOCUSED) == "Cancel this job…"
    press("Enter")
    expect(tab.page.get_by_label("Reason")).to_be_focused()
    tab.page.keyboard.type("not today")
    press("Tab")
    press("Tab")
    press("Tab")
    press("Enter")
    expect(tab.page.get_by_role("dialog")).to_be_hidden()
    assert worker.report(jobs[2]).cancellation.reason == "not today"
    expect(tab.page.get_by_role("button", name="Cancel this job")).to_be_focused()
    tab.page.go_back()
    expect(tab.page.get_by_role("link", name="Job 2", exact=True)).to_be_focused()


def test_what_a_screen_reader_finds(visit: Visit, worker: Worker) -> None:
    job = worker.create("Stage MARC records", size=1000, unit="records")
    unknown = worker.create("Crawl the repository", unit="pages")
    worker.report(job, progress=250)
    worker.report(unknown, progress=7)
    tab = visit()
    bar = tab.page.get_by_role("progressbar", name="Stage MARC records")
    expect(bar).to_have_attribute("aria-valuenow", "25")
    expect(bar).to_have_attribute("aria-valuetext", "Running, 25 %, 250 of 1,000 records")
    open_end = tab.page.get_by_role("progressbar", name="Crawl the repository")
    expect(open_end).to_have_attribute("aria-valuetext", "Running, 7 pages")
    assert open_end.get_attribute("aria-valuenow") is None
    # It says what has happened, and nothing of each step on the way.
    tab.page.evaluate("""() => {
      window.said = [];
      const live = document.querySelectorAll("[role=status], [role=alert], [aria-live]");
      for (const region of live) {
        new MutationObserver(() => region.textContent && window.said.push(region.textContent))
          .observe(region, { childList: true, characterData: true, subtree: true });
      }
    }""")
    for done in range(300, 1000, 50):
        worker.report(job, progress=done, message=f"record {done}")
    expect(bar).to_have_attribute("aria-valuenow", "95")
    worker.finish(job)
    until(lambda: bool(tab.page.evaluate("window.said.length")))
    assert tab.page.evaluate("window.said") == ["Stage MARC records: completed."]


def test_nothing_moves_with_reduced_motion(visit: Visit, worker: Worker) -> None:
    worker.report(worker.create("Crawl the repository"), progress=7)
    moving = "getComputedStyle(document.querySelector('#list .fill')).animationName"
    for still, animation in ((False, "headway-goes-on"), (True, "none")):
        tab = visit(still=still)
        expect(tab.rows()).to_have_count(1)
        assert tab.page.evaluate(moving) == animation


def test_dark_mode_is_dark(visit: Visit, worker: Worker) -> None:
    worker.create("Export patrons")
    papers = []
    for dark in (False, True):
        tab = visit(dark=dark)
        expect(tab.rows()).to_have_count(1)
        papers.append(tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert papers == ["rgb(245, 246, 248)", "rgb(18, 22, 27)"]
