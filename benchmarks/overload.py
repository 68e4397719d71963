"""More than the server can do: what it still does, what the rest is told, and how soon all is well again."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any  # what a process wrote as JSON

from benchmarks import open_loop, stream_load
from benchmarks.calls import SERVICE, new_job, report_of
from benchmarks.figures import Section
from benchmarks.processes import cpu_seconds, server, stub
from headway.v1 import job_service_pb2 as rpc
from tests.support.server import ServerProcess

CONNECTIONS = 4
IN_FLIGHT = 32
"""Of a connection, in the closed loop: enough that more do not raise the rate."""
SECONDS = 3.0
TIMES = (1, 2, 5)
"""Loads, in capacities."""
TIMEOUT = 1.0
"""Seconds until the deadline of a call."""

QUIET = 20
QUIET_SHARE = 0.1
"""Of the capacity, what the quiet connections send together."""

STREAMS = 20
REPORTS = 100
"""In one message of a stream."""


class Parts:
    """The cores, half for the server and half for those who load it, so that neither takes the other's."""

    def __init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        half = len(cores) // 2
        self.server, self.load = (set(cores[:half]), set(cores[half:])) if half else (set(cores), set(cores))

    def place(self, subject: ServerProcess) -> None:
        """Keep the server to its half."""
        for thread in Path(f"/proc/{subject.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), self.server)


class Generator:
    """A load in a process of its own."""

    def __init__(self, module: str, order: open_loop.Order | stream_load.Order, cores: set[int]) -> None:
        command = [sys.executable, "-m", f"benchmarks.{module}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        os.sched_setaffinity(self._process.pid, cores)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(order)))
        self._process.stdin.close()

    def findings(self) -> Any:
        """What it found, once it is done."""
        assert self._process.stdout is not None
        with self._process.stdout as output:
            text = output.read()
        if self._process.wait():
            raise RuntimeError("a load generator failed")
        return json.loads(text)


class Calls:
    """Rounds of single calls against one server."""

    def __init__(self, subject: ServerProcess, parts: Parts, bodies: Sequence[bytes]) -> None:
        self._bodies = [body.hex() for body in bodies]
        self._subject = subject
        self._parts = parts

    def start(self, connections: int, *, rate: float = 0.0, seconds: float = SECONDS) -> Generator:
        order = open_loop.Order(
            self._subject.address,
            f"{SERVICE}/ReportProgress",
            self._bodies,
            seconds=seconds,
            connections=connections,
            rate=rate,
            in_flight=IN_FLIGHT,
            timeout=TIMEOUT,
        )
        return Generator("open_loop", order, self._parts.load)

    def run(self, connections: int, *, rate: float = 0.0, seconds: float = SECONDS) -> open_loop.Findings:
        return open_loop.Findings(**self.start(connections, rate=rate, seconds=seconds).findings())


class Figures:
    """One load's figures, round by round."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.costs: list[float] = []
        """µs of the server for each call that succeeded."""
        self.p50: list[float] = []
        self.p99: list[float] = []
        self.ends: dict[str, list[float]] = {}
        """Share of the calls, by how they ended."""
        self.recovery: list[float] = []

    def add(self, found: open_loop.Findings, cpu: float) -> None:
        succeeded = found.statuses.get("0", 0)
        self.rates.append(succeeded / found.seconds)
        self.costs.append(cpu / max(succeeded, 1) * 1e6)
        self.p50.append(1000 * at(found.latencies, 0.5))
        self.p99.append(1000 * at(found.latencies, 0.99))
        shares = ends(found)
        for end in ENDS:
            self.ends.setdefault(end, []).append(100 * shares.get(end, 0.0))


ENDS = ("RESOURCE_EXHAUSTED, RetryInfo", "closed by gRPC", "deadline over", "other")


def ends(found: open_loop.Findings) -> dict[str, float]:
    """The shares of the calls that failed, by how."""
    total = sum(found.statuses.values())
    counted = dict.fromkeys(ENDS, 0)
    counted[ENDS[0]] = len(found.retry_delays)
    for status, calls in found.statuses.items():
        if status in (str(open_loop.CANCELLED), f"reset {open_loop.REFUSED_STREAM}"):
            counted[ENDS[1]] += calls
        elif status in (str(open_loop.DEADLINE_EXCEEDED), "held"):
            counted[ENDS[2]] += calls
        elif status == str(open_loop.RESOURCE_EXHAUSTED):
            counted[ENDS[3]] += calls - len(found.retry_delays)
        elif status != str(open_loop.OK):
            counted[ENDS[3]] += calls
    return {end: calls / total for end, calls in counted.items()}


def at(numbers: Sequence[float], share: float) -> float:
    """The number that so many are not above."""
    return sorted(numbers)[int(len(numbers) * share)] if numbers else 0.0


def run(rounds: int) -> Section:
    section = Section("Overload, SQLite")
    parts = Parts()
    with tempfile.TemporaryDirectory() as name:
        with server(Path(name)) as subject:
            parts.place(subject)
            jobs = [new_job(stub(subject.address)) for _ in range(50)]
            for kind, bodies in (
                ("light", [report_of(job) for job in jobs]),
                ("with 7 KB of variables", [heavy_report_of(job) for job in jobs]),
            ):
                calls = Calls(subject, parts, bodies)
                calls.run(CONNECTIONS, seconds=1)
                single_calls(section, rounds, kind, calls, subject)
        (Path(name) / "streams").mkdir()
        with server(Path(name) / "streams") as subject:
            parts.place(subject)
            streams(section, rounds, subject, parts)
    section.notes.append(f"the server on cores {sorted(parts.server)}, the load on {sorted(parts.load)}")
    section.notes.append("closed by gRPC: CANCELLED or REFUSED_STREAM, before the call reached the server's own code")
    return section


def heavy_report_of(job: str) -> bytes:
    report = rpc.ReportProgressRequest.FromString(report_of(job))
    report.variables.update({f"variable {number}": ["x"] * 20 for number in range(60)})
    return report.SerializeToString()


def single_calls(section: Section, rounds: int, kind: str, calls: Calls, subject: ServerProcess) -> None:
    capacity, quiet_errors, quiet_p99 = Figures(), list[float](), list[float]()
    loads = {times: Figures() for times in TIMES}
    for _ in range(rounds):
        before = cpu_seconds(subject.pid)
        found = calls.run(CONNECTIONS)
        capacity.add(found, cpu_seconds(subject.pid) - before)
        rate = capacity.rates[-1]
        for times, figures in loads.items():
            before = cpu_seconds(subject.pid)
            found = calls.run(CONNECTIONS, rate=times * rate)
            figures.add(found, cpu_seconds(subject.pid) - before)
            after = calls.run(CONNECTIONS, rate=0.5 * rate, seconds=2)
            figures.recovery.append(after.unwell_until)
        noisy = calls.start(1, rate=TIMES[-1] * rate)
        quiet = open_loop.Findings(**calls.start(QUIET, rate=QUIET_SHARE * rate).findings())
        noisy.findings()
        quiet_errors.append(100 * (1 - quiet.statuses.get("0", 0) / sum(quiet.statuses.values())))
        quiet_p99.append(1000 * at(quiet.latencies, 0.99))
    section.add(f"capacity: ReportProgress, {kind}, {CONNECTIONS} × {IN_FLIGHT} in flight", capacity.rates, "calls/s")
    for times, figures in loads.items():
        goal = 0.8 if times == TIMES[-1] else None
        name = f"{times} × capacity, deadline {TIMEOUT:g} s: answered, of the capacity"
        section.add_ratio(name, figures.rates, capacity.rates, at_least=goal)
        section.add_ratio("  server CPU an answered call, of that at capacity", figures.costs, capacity.costs)
        section.add("  answered after, median", figures.p50, "ms")
        section.add("  answered after, 99 of 100", figures.p99, "ms")
        for end, shares in figures.ends.items():
            section.add(f"  {end}", shares, "%")
        section.add("  well again after, at half the capacity", figures.recovery, "s", at_most=5.0)
    name = f"{QUIET} quiet connections beside one with {TIMES[-1]} × capacity: failed"
    section.add(name, quiet_errors, "%", at_most=1.0)
    section.add("  answered after, 99 of 100", quiet_p99, "ms")


def streams(section: Section, rounds: int, subject: ServerProcess, parts: Parts) -> None:
    calls = stub(subject.address)
    bodies = []
    for _ in range(STREAMS):
        job = new_job(calls)
        report = rpc.ReportProgressRequest(session_id="bench", job_id=job, advance=1)
        bodies.append(rpc.StreamProgressRequest(reports=[report] * REPORTS).SerializeToString().hex())

    def load(rate: float) -> stream_load.Findings:
        order = stream_load.Order(subject.address, bodies, SECONDS, rate)
        return stream_load.Findings(**Generator("stream_load", order, parts.load).findings())

    capacities, rates, errors = list[float](), list[float](), list[float]()
    p50, p99, paces, calm_paces = list[float](), list[float](), list[float](), list[float]()
    for _ in range(rounds):
        found = load(0)
        capacities.append(found.acked / SECONDS)
        calm = load(0.1 * capacities[-1])
        calm_paces.append(at(calm.paces, 0.5))
        found = load(TIMES[-1] * capacities[-1])
        rates.append(found.acked / SECONDS)
        p50.append(1000 * at(found.latencies, 0.5))
        p99.append(1000 * at(found.latencies, 0.99))
        paces.append(at(found.paces, 0.5))
        errors.append(found.broken)
    reports = [rate * REPORTS for rate in capacities]
    section.add(f"capacity: {STREAMS} streams, {REPORTS} reports a message", reports, "reports/s")
    name = f"{TIMES[-1]} × capacity: acknowledged, of the capacity"
    section.add_ratio(name, rates, capacities, at_least=0.8)
    section.add("  acknowledged after, median", p50, "ms")
    section.add("  acknowledged after, 99 of 100", p99, "ms")
    section.add("  streams that broke", errors)
    section.add("  asked to report after, median", paces, "s")
    section.add("  the same at a tenth of the capacity", calm_paces, "s")
