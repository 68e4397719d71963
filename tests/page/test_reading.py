"""Order, filters and search of the list, and the page of a job."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Route, expect

from headway.v1 import job_pb2
from tests.page.conftest import Visit
from tests.page.worker import Worker
from tests.support.caller import struct
from tests.support.server import ServerProcess


def errors(first: int, last: int) -> list[job_pb2.RecordError]:
    numbers = range(first, last + 1)
    return [job_pb2.RecordError(record=f"ocm{n:04}", code="BAD_LEADER", message=f"leader {n}") for n in numbers]


def test_order_filter_and_search(visit: Visit, worker: Worker) -> None:
    first = worker.create("First import", invoker="alice", size=10, labels={"kind": "import"})
    worker.create("Second export", invoker="bob", size=10, labels={"kind": "export"})
    done = worker.create("Third import", invoker="alice")
    failed = worker.create("Fourth import")
    waiting = worker.create("Fifth import", pending=True)
    assert waiting
    worker.finish(done)
    worker.fail(failed, "no space left")
    worker.report(first, progress=1, record_errors=errors(1, 3))
    tab = visit()
    expect(tab.rows()).to_have_count(5)
    # What goes on in the order that it began, what waits, what ended last.
    expect(tab.names()).to_have_text(["First import", "Second export", "Fifth import", "Fourth import", "Third import"])
    expect(tab.page.get_by_role("radio", name="Active")).to_have_accessible_name("Active 3")
    expect(tab.page.get_by_role("radio", name="Cancelled")).to_be_hidden()
    tab.filter("Failed")
    expect(tab.names()).to_have_text(["Fourth import"])
    expect(tab.row("Fourth import")).to_contain_text("no space left")
    tab.filter("All")
    search = tab.page.get_by_role("searchbox")
    search.fill("ALICE import")
    expect(tab.names()).to_have_text(["First import", "Third import"])
    search.fill("kind=export")
    expect(tab.names()).to_have_text(["Second export"])
    search.fill("nothing like it")
    expect(tab.page.get_by_text("No jobs match.")).to_be_visible()
    search.fill("")
    sort = tab.page.get_by_label("Sort by")
    sort.select_option("name")
    expect(tab.names()).to_have_text(["Fifth import", "First import", "Fourth import", "Second export", "Third import"])
    sort.select_option("newest")
    expect(tab.names().first).to_have_text("Fifth import")
    sort.select_option("record errors")
    expect(tab.names().first).to_have_text("First import")


def test_jobs_that_continue_each_other_lead_to_each_other(visit: Visit, worker: Worker) -> None:
    failed = worker.create("Nightly import", key="nightly")
    worker.fail(failed, "no space left")
    job = worker.create("Second try", continues=failed)
    tab = visit()
    tab.open_job("Second try")
    facts = tab.section("Facts")
    expect(facts.get_by_role("link")).to_have_count(1)
    facts.get_by_role("link", name=failed).click()
    expect(tab.page).to_have_url(re.compile(rf"#/job/{failed}$"))
    expect(facts).to_contain_text("nightly")
    expect(facts.get_by_role("link")).to_have_count(1)
    expect(tab.section("History")).to_contain_text(f"Failed continued by {job}")
    facts.get_by_role("link", name=job).click()
    expect(tab.page).to_have_url(re.compile(rf"#/job/{job}$"))


def test_a_jobs_own_page(visit: Visit, worker: Worker) -> None:
    labels = {"kind": "import", "branch": "CPL"}
    job = worker.create("Stage MARC records", invoker="alice", size=1000, unit="records", labels=labels)
    worker.report(job, part="a.mrc", progress=200, counters={"added": 180, "skipped": 20}, message="a.mrc")
    worker.report(job, part="b.mrc", progress=50, variables=struct({"offset": 4711, "files": ["a.mrc", "b.mrc"]}))
    tab = visit()
    tab.open_job("Stage MARC records")
    assert re.search(rf"#/job/{job}$", tab.page.url)
    expect(tab.page).to_have_title("25 % · Stage MARC records · Headway")
    facts = tab.section("Facts")
    for words in ("250 of 1,000 records", "alice", "branch=CPL, kind=import", job):
        expect(facts).to_contain_text(words)
    expect(tab.section("Counters")).to_contain_text("180")
    expect(tab.section("Parts")).to_contain_text("b.mrc50 records")
    expect(tab.section("History")).to_contain_text("Running created")
    variables = tab.section("Variables")
    expect(variables).to_contain_text("offset 4711")
    expect(tab.section("Results")).to_be_hidden()
    expect(tab.section("Record errors")).to_be_hidden()
    expect(tab.page.get_by_role("img", name=re.compile("Progress over time: 0 at .*, 250 records at"))).to_be_visible()
    for done in range(300, 900, 100):
        worker.report(job, part="b.mrc", progress=done, variables=struct({"offset": done}))
    expect(facts).to_contain_text("1,000 of 1,000 records")
    expect(variables).to_contain_text("offset 800")
    drawn = tab.page.locator(".curve .line").get_attribute("d") or ""
    assert drawn.count("L") >= 3
    worker.finish(job, {"added": 980, "batch": {"id": 12, "rows": [[1, 2], None, True]}, "note": "all done"})
    results = tab.section("Results")
    expect(results).to_contain_text("added 980")
    results.get_by_text("batch").click()
    results.get_by_text("rows").click()
    expect(results).to_contain_text("2 null")
    results.get_by_role("button", name="Raw").click()
    expect(results.locator("pre")).to_contain_text('"note": "all done"')
    tab.picture("job", whole=True)
    tab.page.get_by_role("link", name="All jobs").click()
    expect(tab.row("Stage MARC records")).to_be_visible()
    expect(tab.page.get_by_role("link", name="Stage MARC records")).to_be_focused()


def test_why_a_job_failed_stands_apart(visit: Visit, worker: Worker) -> None:
    """Beside counts and counters the reason would be one more fact; the traceback is the job's own page's."""
    job = worker.create("Export patrons", size=40_000, unit="patrons")
    worker.report(job, progress=12_345, counters={"written": 12_345})
    trace = [f'  File "/srv/export.py", line {n}, in step_{n}' for n in range(30)]
    worker.fail(job, "OSError: No space left on device: patrons.csv", trace=trace)
    tab = visit()
    row = tab.row("Export patrons")
    expect(row.locator(".failure")).to_have_text("OSError: No space left on device: patrons.csv")
    expect(row.locator(".facts")).not_to_contain_text("No space")
    expect(row.locator(".facts")).to_contain_text("12,345 of 40,000 patrons")
    tab.open_job("Export patrons")
    expect(tab.page.locator(".head .failure")).to_have_text("OSError: No space left on device: patrons.csv")
    section = tab.section("Traceback")
    lines = section.locator("pre")
    expect(lines).to_contain_text("in step_29")
    expect(lines).to_contain_text("in step_20")
    expect(lines).not_to_contain_text("in step_19")
    tab.picture("failed", whole=True)
    section.get_by_role("button", name="Show all 30 lines").click()
    expect(lines).to_contain_text("in step_0\n")
    expect(section.get_by_role("button")).to_be_hidden()


def test_a_failure_without_a_traceback_has_no_section_of_it(visit: Visit, worker: Worker) -> None:
    worker.fail(worker.create("Export patrons"), "no space left")
    tab = visit()
    tab.open_job("Export patrons")
    expect(tab.section("Facts")).to_be_visible()
    expect(tab.section("Traceback")).to_be_hidden()


def test_record_errors_first_and_last(visit: Visit, worker: Worker) -> None:
    job = worker.create("Stage MARC records")
    worker.report(job, record_errors=errors(1, 150))
    worker.report(job, record_errors=errors(151, 312))
    tab = visit()
    tab.open_job("Stage MARC records")
    section = tab.section("Record errors (312)")
    rows = section.locator("tbody tr")
    expect(rows).to_have_count(200)
    expect(rows.nth(99)).to_contain_text("100ocm0100")
    expect(rows.nth(100)).to_contain_text("213ocm0213")
    expect(rows.last).to_contain_text("312ocm0312")
    expect(section).to_contain_text("The first and the last 100 are stored.")
    section.get_by_role("searchbox").fill("leader 30")
    expect(rows).to_have_count(12)
    expect(section).to_contain_text("12 found.")
    worker.report(job, record_errors=errors(313, 313))
    expect(tab.section("Record errors (313)")).to_be_visible()
    section = tab.section("Record errors (313)")
    section.get_by_role("searchbox").fill("")
    expect(section.locator("tbody tr").last).to_contain_text("313ocm0313")


def test_few_record_errors_are_shown_once(visit: Visit, worker: Worker) -> None:
    job = worker.create("Stage MARC records")
    worker.report(job, record_errors=errors(1, 130))
    tab = visit()
    tab.open_job("Stage MARC records")
    rows = tab.section("Record errors (130)").locator("tbody tr")
    expect(rows).to_have_count(130)
    expect(rows.nth(100)).to_contain_text("101ocm0101")


GONE = "There is no such job in this session."


def test_a_job_that_is_not_there(visit: Visit, worker: Worker) -> None:
    """Only that is shown, whatever the page was asking for when the job was removed."""
    job = worker.create("Export patrons", size=4)
    worker.report(job, progress=1, counters={"written": 1}, variables=struct({"offset": 1}))
    tab = visit()
    held: list[Route] = []
    tab.page.route("**/GetVariables", lambda route: held.append(route))
    with tab.page.expect_request("**/GetVariables"):
        tab.open_job("Export patrons")
    tab.page.get_by_role("button", name="Cancel this job").click()
    expect(tab.page.get_by_role("dialog")).to_be_visible()
    worker.clear(job)
    expect(tab.page.get_by_text(GONE)).to_be_visible()
    expect(tab.page.get_by_role("dialog")).to_be_hidden()
    with tab.page.expect_response("**/GetVariables"):
        held.pop().continue_()
    for _ in range(2):
        expect(tab.page.get_by_text(GONE)).to_be_visible()
        expect(tab.page.get_by_role("heading", name="Job not found")).to_be_focused()
        expect(tab.page).to_have_title("Job not found · Headway")
        expect(tab.page.locator("#job > :visible, #job-view button:visible")).to_have_count(0)
        tab.picture("job-gone")
        tab.page.reload()
    tab.open(tab.page.url.replace(job, "nonsense"))
    expect(tab.page.get_by_text(GONE)).to_be_visible()


def test_times_are_the_readers_own(visit: Visit, worker: Worker) -> None:
    job = worker.create("Export patrons")
    created = worker.get(job).create_time.ToDatetime()
    for zone, hours in (("Asia/Tokyo", 9), ("UTC", 0)):
        tab = visit(zone=zone)
        tab.open_job("Export patrons")
        time = tab.section("Facts").locator("time").first
        assert f"{(created.hour + hours) % 24:02}:{created:%M:%S}" in time.inner_text()
        assert time.get_attribute("title") == f"{created:%Y-%m-%d %H:%M:%S} UTC"


def test_ages_are_told_by_the_servers_clock(visit: Visit, worker: Worker) -> None:
    job = worker.create("Export patrons")
    tab = visit()
    tab.page.clock.install(time="2099-01-01T12:00:00Z")
    tab.page.reload()
    tab.open_job("Export patrons")
    worker.report(job, progress=1)
    expect(tab.section("Facts")).to_contain_text(re.compile(r"Last contact[0-9] s ago"))
    expect(tab.section("Facts")).to_contain_text(re.compile(r"Running for\d s"))


def test_an_admin_sees_all_sessions(visit: Visit, own_server: ServerProcess, session: str) -> None:
    mine, other = Worker(own_server, session), Worker(own_server, f"{session}-other")
    mine.create("Mine")
    job = other.create("Theirs", size=4)
    other.report(job, progress=1)
    tab = visit(own_server)
    expect(tab.rows()).to_have_count(1)
    tab.open(f"http://{own_server.http_address}/#token={own_server.token}")
    tab.page.get_by_role("button", name="Show the other jobs").click()
    expect(tab.rows()).to_have_count(2)
    assert own_server.token not in tab.page.url
    expect(tab.page.get_by_text("All sessions")).to_be_visible()
    tab.open_job("Theirs")
    tab.page.get_by_role("button", name="Cancel this job").click()
    tab.page.get_by_label("Time to stop").select_option("none: cancel now")
    tab.page.get_by_role("button", name="Cancel the job").click()
    expect(tab.page.locator(".head")).to_contain_text("Cancelled")
    # The token is of one run of the server.
    own_server.restart()
    alert = tab.page.get_by_role("alert")
    expect(alert).to_contain_text("The server was started again. Each start makes a new admin token.")
    expect(tab.page.get_by_label("Session")).to_be_focused()
    old = own_server.token
    own_server.restart()
    tab.open(f"http://{own_server.http_address}/#token={old}")
    expect(alert).to_contain_text("This link is from an earlier start of the server.")
    expect(alert).to_contain_text("Open the link that “headway serve” printed when it last started")
    tab.picture("old-link")
    tab.page.get_by_text("I have a token").click()
    tab.page.get_by_label("Token").fill("guessed")
    tab.page.get_by_label("Token").press("Enter")
    expect(alert).to_contain_text("The server does not know this token.")
    mine.close()
    other.close()


def test_an_address_that_names_a_job(visit: Visit, worker: Worker, server: ServerProcess, session: str) -> None:
    job = worker.create("Export patrons", size=4)
    worker.create("Another")
    tab = visit()
    tab.open(f"http://{server.http_address}/#session={session}&job={job}")
    expect(tab.page.get_by_role("heading", name="Export patrons", level=1)).to_be_focused()
    assert tab.page.url == f"http://{server.http_address}/#/job/{job}"
    worker.report(job, progress=3)
    expect(tab.page.get_by_role("progressbar", name="Export patrons").first).to_have_attribute("aria-valuenow", "75")


@pytest.mark.parametrize("within", ["the list", "a job"])
def test_a_link_to_another_session_is_followed_only_if_the_reader_agrees(
    visit: Visit, worker: Worker, server: ServerProcess, session: str, within: str
) -> None:
    """Somebody else may have made it, to have their jobs taken for the reader's own."""
    other = Worker(server, f"{session}-other")
    worker.create("Mine", size=4)
    theirs = other.create("Theirs", size=4)
    tab = visit()
    expect(tab.names()).to_have_text(["Mine"])
    if within == "a job":
        tab.open_job("Mine")
    asked = tab.page.get_by_role("dialog", name="Follow this link?")
    link = f"http://{server.http_address}/#session={session}-other&job={theirs}"
    for answer in ("button", "Escape", "reload"):
        tab.open(link)
        expect(asked).to_be_visible()
        tab.picture("switch")
        assert f"{session}-other" not in tab.page.url
        match answer:
            case "button":
                tab.page.get_by_role("button", name="Stay here").click()
            case "Escape":
                tab.page.keyboard.press("Escape")
            case _:
                tab.page.reload()
        expect(asked).to_be_hidden()
        expect(tab.page.get_by_text("Theirs")).to_have_count(0)
        if within == "a job" and answer != "reload":
            expect(tab.page.get_by_role("heading", name="Mine", level=1)).to_be_visible()
    # The same session is no other.
    tab.open(f"http://{server.http_address}/#session={session}")
    expect(tab.names()).to_have_text(["Mine"])
    expect(asked).to_be_hidden()
    tab.open(link)
    expect(asked).to_be_visible()
    assert [violation["id"] for violation in Axe().run(tab.page).response["violations"]] == []
    tab.page.get_by_role("button", name="Show the other jobs").click()
    expect(tab.page.get_by_role("heading", name="Theirs", level=1)).to_be_visible()
    # In a tab that has none yet, nobody is asked.
    tab.page.get_by_role("button", name="Switch session").click()
    tab.open(link)
    expect(tab.page.get_by_role("heading", name="Theirs", level=1)).to_be_visible()
    other.close()
