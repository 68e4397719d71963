"""Texts for durations, and for a worker that is late."""

from typing import Any  # what a page's own code answers with

from playwright.sync_api import expect

from tests.page.conftest import Visit
from tests.page.tab import Tab
from tests.page.worker import Worker

SECOND = 1000


def answer(tab: Tab, module: str, code: str, given: object) -> Any:
    """What the code, a function of a module of the page and of what is given, answers."""
    return tab.page.evaluate(f"given => import('./{module}.js').then(it => ({code})(it, given))", given)


def test_lengths_of_time(visit: Visit) -> None:
    told = {
        0: "0 s",
        42: "42 s",
        99: "99 s",
        100: "1 min 40 s",
        120: "2 min",
        617: "10 min 17 s",
        5999: "99 min 59 s",
        6000: "1 h 40 min",
        7200: "2 h",
        7380: "2 h 3 min",
        360_000: "4 d",
    }
    seconds = list(told)
    words = answer(visit(), "text", "(it, given) => given.map(each => it.span(each * 1000))", seconds)
    assert dict(zip(seconds, words, strict=True)) == told


def test_what_is_left(visit: Visit) -> None:
    told = {
        (40, 50): "40 to 50 s left",
        (0, 50): "up to 50 s left",
        (90, 120): "90 s to 2 min left",
        (120, 180): "2 to 3 min left",
        (200, 260): "3 min 20 s to 4 min 20 s left",
        (120, 260): "2 min to 4 min 20 s left",
        (7200, 10_800): "2 to 3 h left",
    }
    jobs = [
        {"status": "RUNNING", "estimate": {"rate": 1000, "low": low * SECOND, "high": high * SECOND, "asOf": 0}}
        for low, high in told
    ]
    words = answer(visit(), "text", "(it, given) => given.map(each => it.remaining(each, 0))", jobs)
    assert dict(zip(told, words, strict=True)) == told


LATE = """async (it, given) => {
  const { silence } = await import("./text.js");
  return given.map(([contacts, now]) => {
    const seen = new it.Seen();
    const running = { status: "RUNNING", progress: 0, startTime: 1, lastProgressTime: 0 };
    const at = (contact) => ({ ...running, lastContactTime: contact * 1000 });
    for (const contact of contacts) seen.add(at(contact));
    return silence(at(contacts.at(-1)), now * 1000, seen.usual);
  });
}"""


def test_who_is_late(visit: Visit) -> None:
    cases: list[tuple[list[int], int, str]] = [
        ([100], 104, ""),
        ([100], 106, "no report for 6 s"),
        ([100, 101, 102, 103], 108, ""),
        ([100, 101, 102, 103], 109, "no report for 6 s"),
        # A script that reports once a minute is not late after half a minute, and is after four.
        ([100, 160, 220], 250, ""),
        ([100, 160, 220], 460, "no report for 4 min"),
        # One long pause is not how it usually reports.
        ([100, 101, 102, 103, 104, 304, 305, 306], 320, "no report for 14 s"),
    ]
    given = [[contacts, now] for contacts, now, _ in cases]
    assert answer(visit(), "seen", LATE, given) == [told for _, _, told in cases]


LAST_PACE = """(it, given) => {
  const job = {
    id: "0", name: "Export", unit: "records", message: "", invoker: "", counters: {}, cancellation: null, error: null,
    status: "RUNNING", size: 10000, progress: 4000, startTime: 1, lastContactTime: 1000, lastProgressTime: 1000,
    estimate: { rate: 9297, low: 500, high: 900000, asOf: 1000 },
  };
  const bar = new it.Bar();
  return given.map(now => (bar.show(job, now, 500), bar.element.querySelector(".facts").textContent));
}"""


def test_beside_it_stands_the_last_pace(visit: Visit) -> None:
    in_time, late = answer(visit(), "bar", LAST_PACE, [2000, 31_000])
    assert in_time.startswith("4,000 of 10,000 records · 9,297 records/s · up to")
    assert late == "no report for 30 s · 4,000 of 10,000 records · last 9,297 records/s"


def test_a_worker_that_says_nothing_is_plain_to_see(visit: Visit, worker: Worker) -> None:
    job = worker.create("Export patrons", size=10_000, unit="patrons")
    worker.report(job, progress=100)
    tab = visit()
    row = tab.row("Export patrons").locator(".facts")
    expect(row).to_contain_text("no report for")
    expect(row).to_contain_text("100 of 10,000 patrons")
    tab.picture("late")
    tab.open_job("Export patrons")
    expect(tab.page.locator(".head .facts")).to_contain_text("no report for")
    worker.report(job, progress=200)
    expect(tab.page.locator(".head .facts")).to_contain_text("200 of 10,000 patrons")
    expect(tab.page.locator(".head .facts")).not_to_contain_text("no report for")
