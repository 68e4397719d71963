"""Texts of workers are shown as text and never run: in the page and in files for spreadsheets."""

import csv
import io
from pathlib import Path

from playwright.sync_api import expect

from headway.v1 import job_pb2
from tests.page.conftest import Visit
from tests.page.worker import Worker
from tests.support.caller import struct
from tests.support.server import ServerProcess

PAGE = Path(__file__).resolve().parents[2] / "server" / "headway_server" / "http" / "page"

SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(2)>'
LINK = "<a href='javascript:alert(3)'>"
TURNED = "report\u202efdp.exe"


def test_markup_is_text(visit: Visit, worker: Worker) -> None:
    job = worker.create(SCRIPT, invoker=IMAGE, size=8, unit="<b>u</b>", labels={"<i>": LINK})
    worker.report(
        job,
        part="<s>part</s>",
        progress=2,
        message=f"{LINK} {TURNED}",
        counters={"<u>added</u>": 3},
        record_errors=[job_pb2.RecordError(record=SCRIPT, code=IMAGE, message=LINK)],
        variables=struct({SCRIPT: {IMAGE: [LINK, "javascript:alert(4)"]}}),
    )
    other = worker.create("Other")
    worker.fail(other, SCRIPT)
    tab = visit()
    for words in (SCRIPT, IMAGE, "2 of 8 <b>u</b>", LINK, TURNED, "<u>added</u> 3"):
        expect(tab.row(SCRIPT)).to_contain_text(words)
    expect(tab.row("Other")).to_contain_text(SCRIPT)
    # What turns the direction of writing does so within its own text alone.
    name = tab.row(SCRIPT).locator(".more")
    assert name.evaluate("element => getComputedStyle(element).unicodeBidi") == "isolate"
    tab.open_job(SCRIPT)
    expect(tab.page).to_have_title(f"25 % · {SCRIPT} · Headway")
    expect(tab.section("Facts")).to_contain_text(f"<i>={LINK}")
    expect(tab.section("Parts")).to_contain_text("<s>part</s>")
    expect(tab.section("Counters")).to_contain_text("<u>added</u>")
    expect(tab.section("Record errors")).to_contain_text(IMAGE)
    variables = tab.section("Variables")
    variables.get_by_text(SCRIPT).click()
    expect(variables).to_contain_text("javascript:alert(4)")
    variables.get_by_role("button", name="Raw").click()
    expect(variables.locator("pre")).to_contain_text(SCRIPT)
    tab.page.get_by_role("button", name="Cancel this job").click()
    expect(tab.page.get_by_role("dialog")).to_contain_text(f"Cancel “{SCRIPT}”?")
    assert (
        tab.page.locator(
            "body script, body img:not([src='icon.svg']), body b:not([id]), body i, body s, body u"
        ).count()
        == 0
    )


def test_nothing_in_the_page_makes_markup_of_text() -> None:
    for file in PAGE.glob("*.js"):
        source = file.read_text()
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "srcdoc",
        ):
            assert way not in source, f"{file.name}: {way}"


FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", " =1", "＝1+1", "|calc")


def test_a_spreadsheet_carries_nothing_out(visit: Visit, worker: Worker) -> None:
    job = worker.create("Import")
    harmless = 'say "hi", then; go'
    errors = [job_pb2.RecordError(record=formula, code=formula, message=harmless) for formula in FORMULAS]
    worker.report(job, record_errors=[*errors, job_pb2.RecordError(record="ocm2")])
    tab = visit()
    tab.open_job("Import")
    expect(tab.section("Record errors").locator("tbody tr")).to_have_count(len(FORMULAS) + 1)
    with tab.page.expect_download() as waiting:
        tab.page.get_by_role("button", name="Download CSV").click()
    assert waiting.value.suggested_filename == f"record-errors-{job}.csv"
    content = Path(waiting.value.path()).read_bytes().decode("utf-8-sig")
    head, *rows, last = csv.reader(io.StringIO(content, newline=""))
    assert head == ["number", "record", "code", "message"]
    assert rows == [[str(n), f"'{text}", f"'{text}", harmless] for n, text in enumerate(FORMULAS, 1)]
    assert last == [str(len(FORMULAS) + 1), "ocm2", "", ""]


def test_the_session_stays_in_the_tab(visit: Visit, worker: Worker, server: ServerProcess, session: str) -> None:
    worker.create("Export patrons")
    tab = visit()
    expect(tab.row("Export patrons")).to_be_visible()
    assert session not in tab.page.url
    assert session not in tab.page.content()
    assert tab.page.evaluate("JSON.stringify([{ ...localStorage }, document.cookie, history.state])") == '[{},"",null]'
    # Loaded again it is still there, in another tab not.
    tab.page.reload()
    expect(tab.row("Export patrons")).to_be_visible()
    other = tab.context.new_page()
    other.goto(f"http://{server.http_address}/")
    expect(other.get_by_label("Session")).to_be_visible()
    tab.page.get_by_role("button", name="Switch session").click()
    expect(tab.page.get_by_label("Session")).to_be_focused()
    tab.page.reload()
    expect(tab.page.get_by_label("Session")).to_be_visible()
    assert tab.rows().count() == 0
    assert session not in server.log


def test_which_session_it_is(visit: Visit, worker: Worker, session: str) -> None:
    """Enough of it to tell it from another; all of it where the reader asks."""
    worker.create("Export patrons")
    tab = visit()
    shown = tab.page.get_by_role("button", name="Session", exact=False).first
    expect(shown).to_have_text(f"Session {session[:4]}…{session[-4:]}")
    assert session not in tab.page.content()
    shown.click()
    expect(shown).to_have_text(f"Session {session}")
    shown.click()
    expect(shown).to_have_text(f"Session {session[:4]}…{session[-4:]}")
    shortened = "() => import('./caller.js').then(it => ['demo', 'ab', 'x'.repeat(9)].map(it.shortened))"
    assert tab.page.evaluate(shortened) == ["d…o", "…", "xx…xx"]


def test_the_session_is_typed(visit: Visit, worker: Worker, session: str) -> None:
    worker.create("Export patrons")
    tab = visit()
    tab.page.get_by_role("button", name="Switch session").click()
    tab.picture("enter")
    field = tab.page.get_by_label("Session")
    field.fill("bad\u0007session")
    field.press("Enter")
    expect(tab.page.get_by_role("alert")).to_contain_text("control character")
    field.fill(session)
    field.press("Enter")
    expect(tab.row("Export patrons")).to_be_visible()
    assert tab.page.get_by_label("Session").input_value() == ""
