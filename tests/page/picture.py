"""The picture of the page for the README: `make picture`."""

import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from random import Random

from playwright.sync_api import sync_playwright

from headway.v1 import job_pb2
from tests.page.tab import CHROMIUM, Tab, launch
from tests.page.worker import Worker
from tests.support.caller import seconds
from tests.support.server import ServerProcess

OUT = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "page.png"
SESSION = "picture"
LONG_ENOUGH = 9.0
"""Seconds until the server has an estimate of those that run."""


def main() -> int:
    if CHROMIUM is None:
        print("Chromium is not installed", file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(Path(folder)) as server,
        sync_playwright() as playwright,
    ):
        worker = Worker(server, SESSION)
        browser = launch(playwright)
        tab = Tab(browser)
        tab.page.set_viewport_size({"width": 1160, "height": 1000})
        ended(worker)
        run(worker)
        tab.open(f"http://{server.http_address}/#session={SESSION}")
        tab.row("Export patrons").wait_for()
        # The bars glide to where they are.
        tab.page.wait_for_timeout(500)
        tab.page.screenshot(path=OUT)
        tab.close()
        browser.close()
        worker.close()
    print(f"{OUT} ({OUT.stat().st_size:,} bytes)")
    return 0


def ended(worker: Worker) -> None:
    reminders = worker.create("Overdue reminders", invoker="maria", size=800, unit="mails")
    worker.report(reminders, progress=212)
    worker.fail(reminders, "cancelled: wrong letterhead", code=1)
    export = worker.create("Export patrons", invoker="cron", size=40_000, unit="patrons")
    worker.report(export, progress=12_345)
    worker.fail(export, "No space left on device: patrons.csv")


def run(worker: Worker) -> None:
    """Jobs that run, and some that do not quite."""
    load = worker.create("Import the Library of Congress, 2016", invoker="kirsten", size=40_000, unit="records")
    stage = worker.create("Stage MARC records: Hathi, part 3", invoker="kirsten", size=24_000, unit="records")
    dump = worker.create("Compress the dump", invoker="backup", size=34_000_000_000, unit="bytes")
    crawl = worker.create("Harvest the repository", invoker="oai", unit="records")
    covers = worker.create("Fetch covers", invoker="worker-7", size=2500, unit="covers", stall_timeout=seconds(2))
    lost = worker.create(
        "Merge authorities", invoker="worker-3", size=5000, unit="records", heartbeat_timeout=seconds(2)
    )
    worker.create("Reindex holdings", invoker="jan", size=90_000, unit="items", pending=True)
    worker.report(covers, progress=700, message="waiting for covers.example.org")
    worker.report(lost, progress=1890, message="record 1890")
    chance, end = Random(7), time.monotonic() + LONG_ENOUGH
    for number in count(1):
        done = int(1700 * number * 0.5 * chance.uniform(0.95, 1.05))
        errors = [job_pb2.RecordError(record=f"hathi{number}", code="BAD_LEADER")] if number % 6 == 0 else []
        message = f"hathi-3.mrc, record {done}"
        worker.report(stage, progress=done, message=message, counters={"added": 800}, record_errors=errors)
        worker.report(dump, progress=int(1_050_000_000 * number * chance.uniform(0.95, 1.05)), message="dump.sql.gz")
        worker.report(crawl, progress=31 * number, message=f"page {number}")
        worker.report(covers)
        if time.monotonic() > end:
            worker.report(load, progress=40_000, counters={"added": 39_212, "updated": 788})
            worker.finish(load)
            return
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
