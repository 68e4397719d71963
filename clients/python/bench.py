"""What an update costs in the Python client, as clients/conformance/README.md asks it of every client."""

import json
import logging
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Never

from tqdm import tqdm

import headway

REPEATS, SECONDS = 5, 0.1


def set_progress(job: headway.Job, n: int) -> None:
    for done in range(n):
        job.progress = done


def advance(job: headway.Job, n: int) -> None:
    for _ in repeat(None, n):
        job.advance()


def track(job: headway.Job, n: int) -> None:
    for _ in job.track(range(n)):
        pass


def tqdm_update(bar: "tqdm[Never]", n: int) -> None:
    for _ in repeat(None, n):
        bar.update()


def nanoseconds(work: Callable[[int], None]) -> float:
    """The median of the repeats, each of as many updates as take long enough."""
    count, found = 1000, list[float]()
    while len(found) < REPEATS:
        began = time.perf_counter_ns()
        work(count)
        taken = time.perf_counter_ns() - began
        if taken < SECONDS * 1e9:
            count, found = count * 2, []
        else:
            found.append(taken / count)
    return median(found)


def main() -> None:
    os.environ["HEADWAY_SPOOL"] = ""
    logging.getLogger("headway").setLevel(logging.ERROR)
    with (
        Path(os.devnull).open("w") as sink,
        tqdm(file=sink) as bar,
        # Nothing listens there.
        headway.connect("127.0.0.1:9", session="bench", exit_timeout=0.0) as client,
    ):
        works: dict[str, Callable[[headway.Job, int], None]] = {
            "set progress": set_progress,
            "advance": advance,
            "track": track,
        }
        for what, work in works.items():
            # A job for each: a track() that is under way makes other changes take the slow way.
            job = client.job()
            print(json.dumps({"what": what, "ns": nanoseconds(lambda n, work=work, job=job: work(job, n))}))  # type: ignore[misc]
        print(
            json.dumps(
                {
                    "what": "set progress",
                    "of": f"tqdm {version('tqdm')}",
                    "ns": nanoseconds(lambda n: tqdm_update(bar, n)),
                }
            )
        )


if __name__ == "__main__":
    main()
