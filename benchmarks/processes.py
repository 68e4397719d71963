"""The processes that a benchmark watches from outside: the echo that is the limit, and the server beside it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

import grpc

from headway.target import Target, open_channel
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support import memory
from tests.support.server import ServerProcess

ECHO = "/headway.benchmark.Echo"

_SLOW_SYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int fdatasync(int file) {
    static int (*real)(int);
    struct timespec delay = {0, DELAY};
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    nanosleep(&delay, 0);
    return real(file);
}
"""


class Echo:
    """A gRPC server of the same kind that gives back what it got: what the transport alone costs."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.echo"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        self.pid = self._process.pid
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def server(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None, database: str = ""
) -> ServerProcess:
    """A server in a process of its own, as `headway serve` starts it, that takes as many jobs as a benchmark makes."""
    limits = ("--max-session-jobs", "100000000")
    return ServerProcess(folder, *limits, *arguments, environment=environment or {}, database=database)


def stub(address: str) -> JobServiceStub:
    return JobServiceStub(open_channel(Target.from_environment(address)))


def slow_disk(folder: Path, milliseconds: float) -> dict[str, str] | None:
    """The environment of a server whose every sync takes so much longer; None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source, library = folder / "slow_sync.c", folder / "slow_sync.so"
    source.write_text(_SLOW_SYNC)
    delay = f"-DDELAY={int(milliseconds * 1e6)}"
    subprocess.run([compiler, "-shared", "-fPIC", delay, "-o", str(library), str(source), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


def unary(channel: grpc.aio.Channel, path: str) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
    """A method that is called with bytes and answers with bytes."""
    return channel.unary_unary(path)


def streaming(channel: grpc.aio.Channel, path: str) -> "grpc.aio.StreamStreamMultiCallable[bytes, bytes]":
    """The same for streams."""
    return channel.stream_stream(path)


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """MiB."""
    return memory.resident(pid) / 2**20
