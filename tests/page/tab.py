"""A tab of a real browser. A fault in it fails the test."""

import shutil
from pathlib import Path
from typing import TypedDict, Unpack

from playwright.sync_api import Browser, BrowserContext, CDPSession, ConsoleMessage, Locator, Page, Playwright, Request

CHROMIUM = shutil.which("chromium")

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

PICTURES = Path(__file__).resolve().parents[2] / ".cache" / "screenshots"
"""What the pages looked like, for a person's eye."""

LIVE_WITHIN = 30_000
"""The longest wait for anything, in milliseconds: the machine may be busy."""


class TabOptions(TypedDict, total=False):
    """The reader's device and preferences."""

    phone: bool
    dark: bool
    still: bool
    """The reader prefers reduced motion."""
    zone: str
    """Default: Europe/Vienna."""


def launch(playwright: Playwright) -> Browser:
    assert CHROMIUM is not None
    return playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))


class Tab:
    """One tab. `faults` lists its errors; the test fails if there are any."""

    def __init__(self, browser: Browser, **options: Unpack[TabOptions]) -> None:
        self.faults: list[str] = []
        self._tools: CDPSession | None = None
        self.requests: list[str] = []
        """The address of every request."""
        phone = options.get("phone", False)
        self.context: BrowserContext = browser.new_context(
            viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 860},
            device_scale_factor=2 if phone else 1,
            is_mobile=phone,
            has_touch=phone,
            color_scheme="dark" if options.get("dark") else "light",
            reduced_motion="reduce" if options.get("still") else "no-preference",
            timezone_id=options.get("zone", "Europe/Vienna"),
            locale="en-GB",
        )
        self.context.set_default_timeout(LIVE_WITHIN)
        self.page: Page = self.context.new_page()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(f"a dialog: {dialog.message}"))
        self.page.on("request", self._take)

    def _note(self, message: ConsoleMessage) -> None:
        # That a server does not answer, or answers with an error, is for the page to tell.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.faults.append(message.text)

    def _take(self, request: Request) -> None:
        self.requests.append(request.url)
        self.requests += [request.headers["referer"]] if request.headers.get("referer") else []

    def open(self, address: str) -> None:
        self.page.goto(address)

    def rows(self) -> Locator:
        """The jobs of the list."""
        return self.page.locator("#list > li:not(.day)")

    def headings(self) -> Locator:
        """What stands above groups of jobs in the list: "Today"."""
        return self.page.locator("#list > .day")

    def row(self, name: str) -> Locator:
        """The job of this name, in the list."""
        return self.rows().filter(has=self.page.get_by_role("link", name=name, exact=True))

    def names(self) -> Locator:
        """The names of all jobs in the list, in their order."""
        return self.page.locator("#list .name")

    def filter(self, name: str) -> None:
        """Shows the jobs of one kind: "Active"."""
        self.page.get_by_role("radio", name=name).check(force=True)

    def open_job(self, name: str) -> None:
        self.page.get_by_role("link", name=name, exact=True).click()
        self.page.get_by_role("heading", name=name, level=1).wait_for()

    def section(self, title: str) -> Locator:
        """A part of a job's page, by its title."""
        return self.page.locator("section").filter(has=self.page.get_by_role("heading", name=title))

    def tools(self) -> CDPSession:
        """The browser's own tools for developers, of this tab."""
        self._tools = self._tools or self.context.new_cdp_session(self.page)
        return self._tools

    def picture(self, name: str, *, whole: bool = False) -> None:
        """Keeps what it looks like now."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png", full_page=whole)

    def close(self) -> None:
        self.context.close()
