"""What an update costs a worker, with a server and without, and against tqdm if that is installed.

    python -m benchmarks.client [--rounds N] [--updates N] [--output FILE]

Prints nanoseconds an update, net of the empty loop of the same shape, as the median of interleaved rounds with minimum
and maximum, and writes the same as JSON. Takes less than a minute. Other load on the machine moves all figures: the
ratios, taken round by round, say more.
"""

import argparse
import asyncio
import json
import os
import platform
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from importlib import import_module, metadata
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any

import headway
from headway import aio, process
from tests.support.server import ServerProcess

THREADS = 4
MILLION = 1_000_000
SLICES = 40
MILLIONS = "a million advance(), without a server / with one"

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


def track_cancellable(job: headway.Job, n: int) -> None:
    for _ in job.track(range(n), cancellable=True):
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
    "track(cancellable=True)": (track_cancellable, "iteration"),
    "track(), async": (track_async, "async iteration"),
}
PEERS: dict[str, tuple[Work, str]] = {
    "tqdm.update()": (tqdm_update, "loop"),
    "tqdm(iterable)": (tqdm_iterable, "iteration"),
    "tqdm(iterable), async": (tqdm_async, "async iteration"),
}

RATIOS = (
    ("advance() with a server", "empty method call"),
    ("advance() with a server", "tqdm.update()"),
    ("track() with a server", "tqdm(iterable)"),
    ("track(), async with a server", "tqdm(iterable), async"),
)

sink = Path(os.devnull).open("w")  # noqa: SIM115


def timed(work: Work, subject: object, n: int) -> float:
    """Nanoseconds an update."""
    began = time.perf_counter_ns()
    work(subject, n)
    return (time.perf_counter_ns() - began) / n


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def updates(jobs: dict[str, Any], async_jobs: dict[str, Any], tqdm: Any, rounds: int, n: int) -> dict[str, Any]:
    """Every case once a round, in turn."""
    raw: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        raw.setdefault(name, []).append(value)

    for _ in range(rounds):
        base = {name: timed(work, None, n) for name, work in BASES.items()}
        for name, value in base.items():
            note(f"{name} itself", value)
        note("empty method call", timed(empty_method, None, n) - base["loop"])
        for name, (work, against) in CASES.items():
            for where, job in (async_jobs if "async" in name else jobs).items():
                note(f"{name} {where}", timed(work, job, n) - base[against])
        for name, (work, against) in PEERS.items() if tqdm else ():
            note(name, timed(work, tqdm, n) - base[against])
    ratios = {
        f"{name} / {peer}": spread([ours / theirs for ours, theirs in zip(raw[name], raw[peer], strict=True)])
        for name, peer in RATIOS
        if peer in raw
    }
    return {"ns an update, net": {name: spread(values) for name, values in raw.items()}, "ratios": ratios}


def millions(jobs: dict[str, Any], rounds: int) -> dict[str, Any]:
    """A million updates without a server, against as many with one, in slices that take turns."""
    ratios = []
    for _ in range(rounds):
        taken = dict.fromkeys(jobs, 0.0)
        for number in range(SLICES):
            for where in list(jobs) if number % 2 else list(reversed(jobs)):
                taken[where] += timed(advance, jobs[where], MILLION // SLICES)
        ratios.append(taken["without a server"] / taken["with a server"])
    return spread(ratios)


def threads(job: headway.Job, rounds: int, n: int) -> dict[str, Any]:
    """Several threads that share a job: updates a second in all, and whether each of them counted."""
    rates, exact = [], True
    for _ in range(rounds):
        before = job.progress
        workers = [threading.Thread(target=advance, args=(job, n)) for _ in range(THREADS)]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        rates.append(THREADS * n / (time.perf_counter() - began) / 1e6)
        exact = exact and job.progress - before == THREADS * n
    return {"threads": THREADS, "million updates a second": spread(rates), "exact": exact}


def memory() -> float:
    """Resident, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def measure(rounds: int, n: int) -> dict[str, Any]:
    try:
        tqdm: Any = import_module("tqdm")
    except ModuleNotFoundError:
        tqdm = None
    # What is counted for nobody shall neither be kept nor waited for.
    os.environ["HEADWAY_SPOOL"] = ""
    process.EXIT_TIMEOUT = 0.0
    with tempfile.TemporaryDirectory() as folder, socket.socket() as held, ServerProcess(Path(folder)) as server:
        held.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{held.getsockname()[1]}"
        places = {"with a server": server.address, "without a server": nobody}
        # One job for each way to count: a track() that is under way makes other changes take the slow way.
        jobs = {place: headway.connect(at, session="s", exit_timeout=0.0).job() for place, at in places.items()}
        async_jobs = {place: aio.connect(at, session="s", exit_timeout=0.0).job() for place, at in places.items()}
        figures = updates(jobs, async_jobs, tqdm, rounds, n)
        before = memory()
        ratio = millions(jobs, rounds)
        after = memory()
        shared = threads(jobs["with a server"], rounds, n)
        arrived = jobs["with a server"].flush(10.0)
        seen = jobs["with a server"].refresh().snapshot.progress
        return {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "tqdm": metadata.version("tqdm") if tqdm else None,
            "rounds": rounds,
            "updates": n,
            **figures,
            MILLIONS: ratio,
            "threads": shared,
            "MiB before and after": [round(before, 1), round(after, 1)],
            "exact on the server": arrived and seen == jobs["with a server"].progress,
        }


def show(found: dict[str, Any]) -> None:
    print(f"Python {found['python']}, {found['cores']} cores, load {found['load']:.1f}, {found['rounds']} rounds")
    print(f"{'ns an update, net of the loop':42} median     min     max")
    for name, row in found["ns an update, net"].items():
        print(f"  {name:40} {row['median']:6.1f}  {row['min']:6.1f}  {row['max']:6.1f}")
    if found["tqdm"] is None:
        print("  tqdm is not installed, so there is nothing to compare with")
    print(f"{'ratios':60} median     min     max")
    for name, row in {**found["ratios"], MILLIONS: found[MILLIONS]}.items():
        print(f"  {name:58} {row['median']:6.3f}  {row['min']:6.3f}  {row['max']:6.3f}")
    shared, (before, after) = found["threads"], found["MiB before and after"]
    rate = shared["million updates a second"]
    print(f"{THREADS} threads on one job, exact: {shared['exact']}, on the server: {found['exact on the server']};")
    print(f"  million updates a second in all: {rate['median']:.1f} (min {rate['min']:.1f}, max {rate['max']:.1f})")
    print(f"resident before and after {2 * found['rounds']} million updates: {before} and {after} MiB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="at least 5 (7)")
    parser.add_argument("--updates", type=int, default=200_000, help="of each kind in a round (200000)")
    parser.add_argument("--output", type=Path, default=Path(".cache/benchmarks/client.json"), help="the JSON file")
    arguments = parser.parse_args()
    found = measure(max(arguments.rounds, 5), max(arguments.updates, 1))
    show(found)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
