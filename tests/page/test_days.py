"""The times of jobs in the list, the headings of days, and the choice of a range."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.page.conftest import Visit
from tests.page.played import change, ending, play
from tests.page.tab import Tab
from tests.support.caller import Json

VIENNA = ZoneInfo("Europe/Vienna")
NOW = datetime(2040, 3, 26, 15, 0, tzinfo=VIENNA)
"""A Monday, and the day after the clocks were set forward."""


def ago(days: int, hour: int, minute: int = 0) -> datetime:
    """Some days ago, at this time of the day."""
    return datetime(2040, 3, 26, hour, minute, tzinfo=VIENNA) - timedelta(days=days)


def ended(name: str, start: datetime, end: datetime, status: str = "COMPLETED") -> Json:
    return change(name, status=f"JOB_STATUS_{status}", createTime=start, startTime=start, endTime=end)


@pytest.fixture
def tab(visit: Visit) -> Tab:
    """A tab that shows jobs of many days."""
    tab = visit()
    running = {"createTime": ago(0, 14, 3), "startTime": ago(0, 14, 3), "lastContactTime": NOW, "lastProgressTime": NOW}
    changes = [
        change("running", **running),
        change("waiting", status="JOB_STATUS_PENDING", createTime=ago(0, 9, 30)),
        ended("this morning", ago(0, 8, 1), ago(0, 8, 11)),
        ended("overnight", ago(1, 22, 10), ago(0, 0, 15), "FAILED"),
        ended("yesterday, early", ago(1, 3, 30), ago(1, 3, 30)),
        ended("last week", ago(5, 10), ago(5, 11)),
        ended("last month", ago(29, 10), ago(29, 11)),
        ended("last year", ago(150, 10), ago(150, 11)),
    ]
    play(tab, (NOW, ending(*changes)))
    expect(tab.rows()).to_have_count(len(changes))
    return tab


def test_times_and_days(tab: Tab) -> None:
    shown = tab.page.locator("#list > li").evaluate_all(
        "items => items.map(item => (item.querySelector('.name, h2').textContent"
        " + ' | ' + (item.querySelector('.times')?.textContent ?? '')))"
    )
    assert shown == [
        "Running | ",
        "running | since 14:03",
        "Waiting | ",
        "waiting | created 09:30",
        "Today | ",
        "this morning | 08:01 to 08:11",
        "overnight | 25 Mar, 22:10 to 26 Mar, 00:15",
        "Yesterday | ",
        "yesterday, early | 03:30",
        "Wednesday 21 March | ",
        "last week | 10:00 to 11:00",
        "Sunday 26 February | ",
        "last month | 10:00 to 11:00",
        "Friday, 28 October 2039 | ",
        "last year | 10:00 to 11:00",
    ]
    tab.picture("days")
    assert [violation["id"] for violation in Axe().run(tab.page).response["violations"]] == []
    sort = tab.page.get_by_label("Sort by")
    sort.select_option("newest")
    # By the day that they were created on.
    expect(tab.headings()).to_have_count(5)
    expect(tab.headings().nth(1)).to_have_text("Yesterday")
    sort.select_option("name")
    expect(tab.headings()).to_have_count(0)
    # Without headings each row tells its day.
    expect(tab.row("last week").locator(".times")).to_have_text("21 Mar, 10:00 to 11:00")
    expect(tab.row("last year").locator(".times")).to_have_text("28 Oct 2039, 10:00 to 11:00")


def test_a_list_of_what_runs_has_no_headings(tab: Tab) -> None:
    tab.page.get_by_role("searchbox").fill("running")
    expect(tab.names()).to_have_text(["running"])
    expect(tab.headings()).to_have_count(0)


def test_the_keyboard_goes_over_the_headings(tab: Tab) -> None:
    tab.page.get_by_role("link", name="waiting").focus()
    tab.page.keyboard.press("ArrowDown")
    expect(tab.page.get_by_role("link", name="this morning")).to_be_focused()
    tab.page.keyboard.press("ArrowUp")
    tab.page.keyboard.press("Home")
    expect(tab.page.get_by_role("link", name="running")).to_be_focused()


def test_a_range_of_time(tab: Tab) -> None:
    when = tab.page.locator("#when")
    today = ["running", "waiting", "this morning", "overnight"]
    for choice, names in (
        ("today", today),
        ("yesterday", ["overnight", "yesterday, early"]),
        ("last 7 days", [*today, "yesterday, early", "last week"]),
        ("last 30 days", [*today, "yesterday, early", "last week", "last month"]),
        ("any time", [*today, "yesterday, early", "last week", "last month", "last year"]),
    ):
        when.select_option(choice)
        expect(tab.names()).to_have_text(names)
    # The counts are of that time too.
    when.select_option("yesterday")
    expect(tab.page.get_by_role("radio", name="All")).to_have_accessible_name("All 2")
    when.select_option("choose dates")
    expect(tab.page.get_by_label("From")).to_be_focused()
    tab.page.get_by_label("From").fill("2039-10-28")
    tab.page.get_by_label("to", exact=True).fill("2040-03-21")
    expect(tab.names()).to_have_text(["last week", "last month", "last year"])
    tab.picture("range")
    tab.page.get_by_label("From").fill("2040-03-22")
    expect(tab.page.get_by_text("No jobs match.")).to_be_visible()
