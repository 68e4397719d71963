"""An empty session shows at once how to create its first job."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.page.conftest import Visit
from tests.page.worker import Worker
from tests.support.server import ServerProcess

PAGE = Path(__file__).resolve().parents[2] / "server" / "headway_server" / "http" / "page"
EMPTY = "No jobs in this session yet."


def imported(name: str, found: set[str]) -> set[str]:
    """The modules that this one needs, and those need."""
    for other in re.findall(r'from "\./(.+?)";', (PAGE / name).read_text()):
        if other not in found:
            found.add(other)
            imported(other, found)
    return found


def test_an_empty_session_is_shown_before_the_watch_says_anything(visit: Visit) -> None:
    """A watch of a session without jobs is silent, and a page that waits for it shows nothing."""
    tab = visit()
    tab.page.route("**/WatchJobs", lambda _: None)
    tab.page.reload()
    expect(tab.page.get_by_text(EMPTY)).to_be_visible()


def test_a_session_with_jobs_is_never_shown_as_empty(visit: Visit, worker: Worker) -> None:
    worker.create("Export patrons")
    tab = visit()
    tab.page.route("**/WatchJobs", lambda _: None)
    with tab.page.expect_response("**/ListJobs"):
        tab.page.reload()
    tab.page.evaluate("() => new Promise(done => setTimeout(() => requestAnimationFrame(done)))")
    expect(tab.page.get_by_text(EMPTY)).to_be_hidden()
    tab.page.unroute("**/WatchJobs")
    tab.page.reload()
    expect(tab.row("Export patrons")).to_be_visible()


def test_the_modules_are_asked_for_together() -> None:
    """A module that is found only in another one costs one more turn to the server before anything is shown."""
    preloaded = set(re.findall(r'rel="modulepreload" href="(.+?)"', (PAGE / "index.html").read_text()))
    assert preloaded == imported("app.js", set())


def test_the_first_job(visit: Visit, server: ServerProcess, session: str) -> None:
    tab = visit()
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    commands = tab.page.locator("#first-commands")
    expect(commands).to_contain_text(f"HEADWAY_TARGET={server.address}")
    tab.picture("empty")
    assert [violation["id"] for violation in Axe().run(tab.page).response["violations"]] == []
    # The session is a secret, for the clipboard alone.
    assert session not in tab.page.content()
    tab.page.get_by_role("button", name="Copy with the session").click()
    expect(tab.page.get_by_role("button", name="Copied")).to_be_visible()
    copied = tab.page.evaluate("navigator.clipboard.readText()")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {name: text for name, text in os.environ.items() if not name.startswith("HEADWAY_")}
    running = subprocess.Popen(["sh", "-c", copied], env={**environment, "PATH": path}, start_new_session=True)
    try:
        expect(tab.row("First job")).to_contain_text("Running")
        expect(tab.page.get_by_text(EMPTY)).to_be_hidden()
        expect(commands).to_be_hidden()
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
