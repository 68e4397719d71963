"""What an update costs a worker, with a server and without, and against tqdm if that is installed."""

import asyncio
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from itertools import repeat
from pathlib import Path
from types import ModuleType
from typing import Any

import headway
from benchmarks.figures import Section
from benchmarks.processes import resident, server
from headway import aio
from headway._engine import lifecycle

THREADS = 4
MILLION = 1_000_000
UPDATES = 200_000
"""Of each kind in a round."""
TRIES = 3
SLICES = 40
PRESENT, ABSENT = "with a server", "without a server"
EMPTY = "an empty method call"

Work = Callable[[Any, int], object]
"""Does so many updates on a job, or on a bar."""


class Empty:
    def method(self, n: int = 1) -> None:
        pass


def loop(_: object, n: int) -> None:
    for _ in repeat(None, n):
        pass


def iteration(_: object, n: int) -> None:
    for _ in range(n):
        pass


async def numbers(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


def async_iteration(_: object, n: int) -> None:
    async def work() -> None:
        async for _ in numbers(n):
            pass

    asyncio.run(work())


def empty_method(_: object, n: int) -> None:
    empty = Empty()
    for _ in repeat(None, n):
        empty.method()


def advance(job: headway.Job, n: int) -> None:
    for _ in repeat(None, n):
        job.advance()


def progress(job: headway.Job, n: int) -> None:
    for _ in repeat(None, n):
        job.progress += 1


def track(job: headway.Job, n: int) -> None:
    for _ in job.track(range(n)):
        pass


def track_async(job: aio.Job, n: int) -> None:
    async def work() -> None:
        async for _ in job.track(numbers(n)):
            pass

    asyncio.run(work())


def tqdm_update(tqdm: Any, n: int) -> None:
    with tqdm.tqdm(total=n, file=sink) as bar:
        for _ in repeat(None, n):
            bar.update()


def tqdm_iterable(tqdm: Any, n: int) -> None:
    for _ in tqdm.tqdm(range(n), file=sink):
        pass


def tqdm_async(tqdm: Any, n: int) -> None:
    async def work() -> None:
        async for _ in import_module("tqdm.asyncio").tqdm(numbers(n), total=n, file=sink):
            pass

    asyncio.run(work())


BASES: dict[str, Work] = {"loop": loop, "iteration": iteration, "async iteration": async_iteration}
CASES: dict[str, tuple[Work, str]] = {
    "advance()": (advance, "loop"),
    "progress += 1": (progress, "loop"),
    "track()": (track, "iteration"),
    "track(), async": (track_async, "async iteration"),
}
PEERS: dict[str, tuple[Work, str]] = {
    "tqdm.update()": (tqdm_update, "loop"),
    "tqdm(iterable)": (tqdm_iterable, "iteration"),
    "tqdm(iterable), async": (tqdm_async, "async iteration"),
}

AT_MOST = {"advance()": 35, "track() ": 30, "track(), async": 30}
"""Goals, in nanoseconds."""
RATIOS = (
    ("advance()", EMPTY, None),
    ("advance()", "tqdm.update()", 1 / 3),
    ("track()", "tqdm(iterable)", 0.5),
    ("track(), async", "tqdm(iterable), async", 0.5),
)

sink = Path(os.devnull).open("w")  # noqa: SIM115


def timed(work: Work, subject: object, n: int) -> float:
    """Nanoseconds an update; the quickest of three, for what disturbs one only ever adds to it."""
    found = []
    for _ in range(TRIES):
        began = time.perf_counter_ns()
        work(subject, n // TRIES)
        found.append((time.perf_counter_ns() - began) / (n // TRIES))
    return min(found)


def updates(
    jobs: dict[str, headway.Job], async_jobs: dict[str, aio.Job], tqdm: ModuleType | None, rounds: int
) -> dict[str, list[float]]:
    """Every case once a round, in turn; nanoseconds an update, net of the loop."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for _ in range(rounds):
        base = {name: timed(work, None, UPDATES) for name, work in BASES.items()}
        note(EMPTY, timed(empty_method, None, UPDATES) - base["loop"])
        for name, (work, against) in CASES.items():
            for where, job in (async_jobs if "async" in name else jobs).items():
                note(f"{name} {where}", timed(work, job, UPDATES) - base[against])
        for name, (work, against) in PEERS.items() if tqdm else ():
            note(name, timed(work, tqdm, UPDATES) - base[against])
    return found


def millions(jobs: dict[str, headway.Job], rounds: int) -> list[float]:
    """A million updates without a server, against as many with one, in slices that take turns."""
    ratios = []
    for _ in range(rounds):
        taken = dict.fromkeys(jobs, 0.0)
        for number in range(SLICES):
            for where in list(jobs) if number % 2 else list(reversed(jobs)):
                began = time.perf_counter()
                advance(jobs[where], MILLION // SLICES)
                taken[where] += time.perf_counter() - began
        ratios.append(taken[ABSENT] / taken[PRESENT])
    return ratios


def threads(job: headway.Job, rounds: int) -> list[float]:
    """Several threads that share a job: nanoseconds an update, the threads' work taken together. RuntimeError if one
    was not counted."""
    found = []
    for _ in range(rounds):
        before = job.progress
        workers = [threading.Thread(target=advance, args=(job, UPDATES)) for _ in range(THREADS)]
        began = time.perf_counter_ns()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        found.append((time.perf_counter_ns() - began) / UPDATES / THREADS)
        if job.progress - before != THREADS * UPDATES:
            raise RuntimeError("threads that share a job lost a count")
    return found


def run(rounds: int) -> Section:
    section = Section("What an update costs a worker, net of the empty loop")
    try:
        tqdm = import_module("tqdm")
    except ModuleNotFoundError:
        tqdm = None
        section.skipped.append("tqdm: it is not installed")
    # What is counted for nobody shall neither be kept nor waited for.
    os.environ["HEADWAY_SPOOL"] = ""
    lifecycle.EXIT_TIMEOUT = 0.0
    logging.getLogger("headway").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, socket.socket() as held, server(Path(folder)) as subject:
        held.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{held.getsockname()[1]}"
        places = {PRESENT: subject.address, ABSENT: nobody}
        # One job for each way to count: a track() that is under way makes other changes take the slow way.
        jobs = {place: headway.connect(at, session="s", exit_timeout=0.0).job() for place, at in places.items()}
        async_jobs = {place: aio.connect(at, session="s", exit_timeout=0.0).job() for place, at in places.items()}
        found = updates(jobs, async_jobs, tqdm, rounds)
        before = resident(os.getpid())
        ratios = millions(jobs, rounds)
        grown = resident(os.getpid()) - before
        shared = threads(jobs[PRESENT], rounds)
        if not jobs[PRESENT].flush(10.0) or jobs[PRESENT].refresh().snapshot.progress != jobs[PRESENT].progress:
            raise RuntimeError("the server does not have what the worker counted")
        for name, values in found.items():
            section.add(name, values, "ns", at_most=next((g for n, g in AT_MOST.items() if name.startswith(n)), None))
        for ours, theirs, goal in RATIOS:
            if theirs in found:
                section.add_ratio(
                    f"{ours} {PRESENT} / {theirs}", found[f"{ours} {PRESENT}"], found[theirs], at_most=goal
                )
        section.add(f"a million advance(), {ABSENT} / {PRESENT}", ratios, "×", at_most=1.01)
        section.add(f"advance() from {THREADS} threads of one job, exact", shared, "ns", at_most=35)
        section.add(f"memory gained in {2 * rounds} million updates", [grown], "MiB", at_most=1)
    return section
