"""Readiness is a write that works: it tells of a full disk, of files that are gone, and of a process out of files."""

import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.http import Client
from tests.support.mount import small_disk
from tests.support.refusals import Refusal, refused
from tests.support.server import ServerProcess
from tests.support.waiting import until

TOLD_WITHIN = 30.0
"""Seconds; about 5 where the machine is not busy."""

ROUNDS = 4.0
"""Seconds in which the sweeper checks several times."""


class Operator:
    """An observer of a server."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.client = Client(server.http_address)
        self.channel = grpc.insecure_channel(server.address)
        self.stub = JobServiceStub(self.channel)
        self._health = health_pb2_grpc.HealthStub(self.channel)

    def unready(self) -> Refusal | None:
        """Why the server is not ready; None: it is."""
        answer = self.client.get("/readyz")
        return None if answer.status == 200 else answer.refusal

    def serving(self) -> bool:
        answer = self._health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def is_unready(self, reason: str) -> bool:
        refusal = self.unready()
        return refusal is not None and refusal.reason == reason and not self.serving()

    def is_ready(self) -> bool:
        return self.unready() is None and self.serving()

    def sees_it_stay(self, reason: str) -> None:
        """At every moment of some rounds, though nobody calls."""
        end = time.monotonic() + ROUNDS
        while time.monotonic() < end:
            assert self.is_unready(reason)

    def create(self) -> str:
        return self.stub.CreateJob(pb.CreateJobRequest(session_id="s"), timeout=10).id

    def report(self, job_id: str) -> None:
        self.stub.ReportProgress(pb.ReportProgressRequest(session_id="s", job_id=job_id, advance=1), timeout=10)

    def has(self, job_id: str) -> bool:
        return self.stub.GetJob(pb.GetJobRequest(session_id="s", job_id=job_id), timeout=10).id == job_id

    def close(self) -> None:
        self.client.close()
        self.channel.close()


@pytest.fixture
def operator(own_server: ServerProcess) -> Iterator[Operator]:
    with closing(Operator(own_server)) as operator:
        yield operator


def fill(disk: Path) -> Path:
    """A file that takes all the room."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def test_a_full_disk_is_told_until_it_has_room_though_nobody_calls(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "8m") as disk,
        ServerProcess(tmp_path, database=f"sqlite:///{disk / 'headway.db'}") as server,
        closing(Operator(server)) as operator,
    ):
        job_id = operator.create()
        assert operator.is_ready()
        filler = fill(disk)
        until(lambda: operator.is_unready("STORAGE_FULL"), TOLD_WITHIN)
        operator.sees_it_stay("STORAGE_FULL")
        assert server.log.count("not ready, STORAGE_FULL") == 1
        filler.unlink()
        until(operator.is_ready, TOLD_WITHIN)
        operator.report(job_id)
        assert operator.has(job_id)
        assert server.log.count("ready again") == 1


@pytest.mark.parametrize("suffix", ["", ".lock", "-wal", "-shm"])
def test_a_file_of_the_database_that_is_moved_away_and_comes_back(
    operator: Operator, own_server: ServerProcess, tmp_path: Path, suffix: str
) -> None:
    job_id = operator.create()
    file = tmp_path / f"headway.db{suffix}"
    file.rename(tmp_path / "elsewhere")
    until(lambda: operator.is_unready("DATABASE_UNAVAILABLE"), TOLD_WITHIN)
    operator.sees_it_stay("DATABASE_UNAVAILABLE")
    for call in (operator.create, lambda: operator.report(job_id)):
        refusal = refused(call)
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
    (line,) = [line for line in own_server.log.splitlines() if "not ready" in line]
    assert str(file) in line
    assert "moved" in line
    (tmp_path / "elsewhere").rename(file)
    until(operator.is_ready, TOLD_WITHIN)
    operator.report(job_id)
    own_server.restart()
    with closing(Operator(own_server)) as after:
        assert after.has(job_id)


def _removed(file: Path) -> None:
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink()


def _replaced(file: Path) -> None:
    copy = file.with_name("copy")
    shutil.copy(file, copy)
    copy.rename(file)


@pytest.mark.parametrize("harm", [_removed, _replaced])
@pytest.mark.parametrize("suffix", ["", ".lock"])
def test_a_file_of_the_database_that_is_another_or_none(
    operator: Operator, own_server: ServerProcess, tmp_path: Path, suffix: str, harm: Callable[[Path], None]
) -> None:
    """Nothing more is acknowledged, for it would be lost; and the end of the server leaves what others have made."""
    operator.create()
    file = tmp_path / f"headway.db{suffix}"
    harm(file)
    until(lambda: operator.is_unready("DATABASE_UNAVAILABLE"), TOLD_WITHIN)
    assert refused(operator.create).reason == "DATABASE_UNAVAILABLE"
    with closing(sqlite3.connect(tmp_path / "headway.db")) as other:
        other.execute("PRAGMA journal_mode = wal")
        other.execute("CREATE TABLE of_another (x)")
        other.execute("INSERT INTO of_another VALUES (1)")
        other.commit()
        assert own_server.stop() == 0
        assert other.execute("SELECT x FROM of_another").fetchall() == [(1,)]
    with closing(sqlite3.connect(tmp_path / "headway.db")) as again:
        assert again.execute("SELECT x FROM of_another").fetchall() == [(1,)]


def test_a_log_that_was_removed_is_saved_by_a_stop_in_good_order(
    operator: Operator, own_server: ServerProcess, tmp_path: Path
) -> None:
    job_id = operator.create()
    (tmp_path / "headway.db-wal").unlink()
    until(lambda: operator.is_unready("DATABASE_UNAVAILABLE"), TOLD_WITHIN)
    own_server.restart()
    with closing(Operator(own_server)) as after:
        assert after.has(job_id)


def test_no_file_descriptor_is_left(tmp_path: Path) -> None:
    """What is open stays in use; readiness goes by that; and all is as before once others have closed theirs."""
    limit = 120
    script = tmp_path / "limited"
    script.write_text(f'#!/bin/sh\nulimit -n {limit}\nexec "$@"\n')
    script.chmod(0o700)
    with ServerProcess(tmp_path, prefix=(str(script),)) as server, closing(Operator(server)) as operator:
        job_id = operator.create()
        assert operator.is_ready()
        with ExitStack() as others:
            port = int(server.http_address.rpartition(":")[2])
            for _ in range(limit):
                others.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            descriptors = Path(f"/proc/{server.pid}/fd")
            until(lambda: len(list(descriptors.iterdir())) >= limit)
            operator.report(job_id)
            assert operator.has(job_id)
            assert operator.stub.ListJobs(pb.ListJobsRequest(session_id="s"), timeout=10).jobs
            assert operator.serving()
            operator.create()
        until(lambda: len(list(descriptors.iterdir())) < limit // 2)
        with closing(Client(server.http_address)) as again:
            assert again.get("/readyz").status == 200


def test_the_limit_of_files_is_raised(tmp_path: Path) -> None:
    """Most systems start programs with a soft limit of 1024, and allow many more."""
    script = tmp_path / "limited"
    script.write_text('#!/bin/sh\nulimit -S -n 100\nexec "$@"\n')
    script.chmod(0o700)
    with ServerProcess(tmp_path, prefix=(str(script),)) as server:
        limits = Path(f"/proc/{server.pid}/limits").read_text()
    (soft, hard) = next(line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))
    assert soft == hard
    assert os.sysconf("SC_OPEN_MAX") > 100
