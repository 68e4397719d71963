"""From a report's sending to the bar in a real browser that shows it, and how soon the page is there."""

import asyncio
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median, quantiles

import grpc
from playwright.sync_api import Page, sync_playwright

from benchmarks.figures import Section
from benchmarks.processes import server, streaming, stub
from headway.v1 import job_service_pb2 as rpc
from tests.page.tab import CHROMIUM, launch
from tests.support.server import ServerProcess

SESSION = "bench-page"
JOBS = 100
EVERY = 0.1
"""Seconds between two reports of a job."""
STREAMS = 10
SECONDS = 5.0
WARM_UP = 1.0
SIZE = 1_000_000

NOTE_BARS = """() => {
  window.bars = [];
  const note = changes => {
    const now = performance.timeOrigin + performance.now();
    for (const row of new Set(changes.map(change => change.target.parentElement?.closest("li")).filter(Boolean))) {
      const [, done] = row.querySelector(".facts").textContent.match(/([\\d,]+) of/) ?? [];
      window.bars.push([row.querySelector(".name").textContent, Number(done?.replaceAll(",", "")), now]);
    }
  };
  new MutationObserver(note).observe(document.querySelector("#list"),
    { subtree: true, childList: true, characterData: true });
}"""

NOTE_FIRST_BAR = """
  const look = new MutationObserver(() => {
    if (!document.querySelector("#list .meter")) return;
    look.disconnect();
    requestAnimationFrame(() => window.firstBar = performance.now());
  });
  look.observe(document, { childList: true, subtree: true });
"""


def run(rounds: int) -> Section:
    section = Section(f"The page, {JOBS} jobs that report at {1 / EVERY:.0f} Hz, Chromium on the same cores")
    if CHROMIUM is None:
        section.skipped.append("Chromium is not installed")
        return section
    with tempfile.TemporaryDirectory() as name, server(Path(name)) as subject, sync_playwright() as playwright:
        calls = stub(subject.address)
        request = rpc.CreateJobRequest(session_id=SESSION, size=SIZE)
        jobs = []
        for number in range(JOBS):
            request.name = f"Job {number}"
            jobs.append(calls.CreateJob(request).id)
        browser = launch(playwright)
        medians, tails, firsts = [], [], []
        for _ in range(rounds):
            page = browser.new_page(locale="en-GB")
            firsts.append(first_bar(page, subject))
            delays = delays_to_bars(page, subject, jobs)
            medians.append(median(delays) * 1e3)
            tails.append(quantiles(delays, n=100)[98] * 1e3)
            page.close()
        browser.close()
    section.add("a report sent, seen at its bar, median", medians, "ms")
    section.add("  99 of 100", tails, "ms", at_most=100)
    section.add("the page opened, the first bar there", firsts, "ms", at_most=1000)
    return section


def first_bar(page: Page, subject: ServerProcess) -> float:
    """Milliseconds."""
    page.add_init_script(NOTE_FIRST_BAR)
    page.goto(f"http://{subject.http_address}/#session={SESSION}")
    page.locator("#list > li").nth(JOBS - 1).wait_for()
    return float(page.evaluate("window.firstBar"))


def delays_to_bars(page: Page, subject: ServerProcess, jobs: list[str]) -> list[float]:
    """Seconds from each report to the bar that shows it, or a later one of its job."""
    sent: dict[str, list[tuple[int, float]]] = {f"Job {number}": [] for number in range(JOBS)}
    page.evaluate(NOTE_BARS)
    reporting = threading.Thread(target=lambda: asyncio.run(report(subject.address, jobs, sent)))
    reporting.start()
    while reporting.is_alive():
        page.wait_for_timeout(100)
    page.wait_for_timeout(1000)
    shown: dict[str, list[tuple[int, float]]] = {name: [] for name in sent}
    for name, done, moment in page.evaluate("window.bars"):
        shown[name].append((done, moment / 1e3))
    delays = []
    for name, reports in sent.items():
        seen = iter(shown[name])
        done, moment = next(seen)
        for progress, begun in reports:
            while done < progress:
                done, moment = next(seen)
            delays.append(moment - begun)
    return delays


async def report(address: str, jobs: list[str], sent: dict[str, list[tuple[int, float]]]) -> None:
    """Reports of all jobs, spread evenly over the time, each when its job is due; `sent` takes note, after a while."""
    began = time.time()
    first = int((began % 1e5) * 10)

    async def requests(numbers: range) -> AsyncIterator[bytes]:
        for tick in range(int((SECONDS + WARM_UP) / EVERY)):
            for number in numbers:
                due = began + (tick + number / JOBS) * EVERY
                await asyncio.sleep(due - time.time())
                progress = first + tick
                one = rpc.ReportProgressRequest(session_id=SESSION, job_id=jobs[number], progress=progress)
                now = time.time()
                if now > began + WARM_UP:
                    sent[f"Job {number}"].append((progress, now))
                yield rpc.StreamProgressRequest(reports=[one]).SerializeToString()

    async def one_stream(place: int) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            call = streaming(channel, "/headway.v1.JobService/StreamProgress")(requests(range(place, JOBS, STREAMS)))
            async for _ in call:
                pass

    await asyncio.gather(*[one_stream(place) for place in range(STREAMS)])
