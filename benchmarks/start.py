"""How long a start takes and what it holds: the server, the library, the command line."""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Section
from benchmarks.processes import resident, server

STUBS = "import grpc; from headway.v1 import job_service_pb2_grpc"
IMPORTS = 5
CLIENT = "import headway; headway.connect"


def run(rounds: int) -> Section:
    section = Section("Start")
    ready, held, stubs, client, shown = (list[float]() for _ in range(5))
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            began = time.perf_counter()
            with server(Path(name)) as subject:
                ready.append(time.perf_counter() - began)
                held.append(resident(subject.pid))
        # Of the processor's time: these are too short for the clock on the wall.
        stubs.append(sum(cpu_seconds(sys.executable, "-c", STUBS) for _ in range(IMPORTS)))
        client.append(sum(cpu_seconds(sys.executable, "-c", CLIENT) for _ in range(IMPORTS)))
        shown.append(seconds(sys.executable, "-m", "headway.cli", "--help") * 1e3)
    section.add("headway serve, ready after", ready, "s", at_most=0.8)
    section.add("headway serve, resident when ready", held, "MiB", at_most=80)
    section.add_ratio("import headway, CPU, of grpc and the stubs", client, stubs, at_most=1.15)
    section.add("headway --help", shown, "ms", at_most=300)
    section.notes.append("ready: with a new database, from the start of the process to its greeting")
    return section


def cpu_seconds(*command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began
