"""Standard streams that are closed or that nobody reads, and signals: the server serves on, and ends in good order."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.server import ServerProcess
from tests.support.waiting import until


class Shell:
    """A server whose standard streams a shell has redirected."""

    def __init__(self, folder: Path, redirect: str, stderr: int | None = None) -> None:
        self.ports = free_ports(2)
        listen, self.http = (f"127.0.0.1:{port}" for port in self.ports)
        command = f"exec {sys.executable} -m headway_server --listen {listen} --http {self.http}"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADWAY_")}
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", f"{command} --database sqlite:///{folder / 'headway.db'} {redirect}"],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**environment, "XDG_DATA_HOME": str(folder)},
        )
        self.channel = grpc.insecure_channel(listen)
        self.stub = JobServiceStub(self.channel)

    def create(self) -> str:
        return self.stub.CreateJob(pb.CreateJobRequest(session_id="s"), timeout=20, wait_for_ready=True).id

    def ready(self) -> int:
        with urllib.request.urlopen(f"http://{self.http}/readyz", timeout=10) as answer:
            return int(answer.status)

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@contextmanager
def running(folder: Path, redirect: str = "", stderr: int | None = None) -> Iterator[Shell]:
    shell = Shell(folder, redirect, stderr)
    try:
        yield shell
    finally:
        shell.channel.close()
        shell.process.kill()
        shell.process.wait()


def full_pipe() -> tuple[int, int]:
    """A pipe that can take no further byte."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(writer, True)
    return reader, writer


def assert_drains(shell: Shell, folder: Path) -> None:
    """It ends as it should, and keeps what it acknowledged."""
    job_id = shell.create()
    shell.process.send_signal(signal.SIGTERM)
    assert shell.process.wait(timeout=20) == 0
    assert not (folder / "headway.db-wal").exists(), "it has closed its database"
    with ServerProcess(folder) as server, grpc.insecure_channel(server.address) as channel:
        assert JobServiceStub(channel).GetJob(pb.GetJobRequest(session_id="s", job_id=job_id), timeout=10).id == job_id


@pytest.mark.parametrize("redirect", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full >/dev/full"])
def test_standard_streams_that_are_closed_or_full(tmp_path: Path, redirect: str) -> None:
    with running(tmp_path, redirect) as shell:
        shell.create()
        shell.process.send_signal(signal.SIGHUP)
        assert shell.ready() == 200
        assert_drains(shell, tmp_path)


def test_a_log_that_nobody_reads(tmp_path: Path) -> None:
    """What cannot be written is dropped and counted; nobody waits for it, the end of the server neither."""
    reader, writer = full_pipe()
    try:
        with running(tmp_path, stderr=writer) as shell:
            shell.create()

            def provoke() -> bool:
                for _ in range(200):
                    shell.process.send_signal(signal.SIGUSR1)
                    shell.process.send_signal(signal.SIGUSR2)
                shell.create()
                return shell.metric("headway_log_lines_dropped_total") > 0

            until(provoke, 60)
            assert shell.ready() == 200
            assert_drains(shell, tmp_path)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_log_whose_reader_goes_away(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with running(tmp_path, stderr=writer) as shell:
        os.close(writer)
        shell.create()
        os.close(reader)
        shell.process.send_signal(signal.SIGHUP)
        until(lambda: shell.metric("headway_log_lines_dropped_total") == 1)
        assert_drains(shell, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_that_changes_nothing(own_server: ServerProcess, number: signal.Signals) -> None:
    with grpc.insecure_channel(own_server.address) as channel:
        own_server.signal(number)
        until(lambda: number.name in own_server.log)
        JobServiceStub(channel).CreateJob(pb.CreateJobRequest(session_id="s"), timeout=10)
    assert own_server.log.count("\n") == 1
    assert own_server.stop() == 0
