"""Workers of other libraries, in processes of their own, that report to a real server."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import headway
from headway.v1 import job_pb2
from tests.conftest import missing
from tests.support.redis import RedisServer, find_binary
from tests.support.server import ServerProcess

Jobs = Callable[[], dict[str, job_pb2.Job]]


def end_process(process: "subprocess.Popen[bytes]", number: int = signal.SIGTERM) -> None:
    """Asks a worker to end, and makes it if a test has left it at work."""
    process.send_signal(number)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=30)
        raise


@contextmanager
def watched(jobs: headway.Client, job_id: str) -> Iterator[None]:
    """Follows a job until it has ended, so that its worker is asked for reports often."""

    def follow() -> None:
        for _ in jobs.watch(None, job_id, timeout=30):
            pass

    thread = threading.Thread(target=follow)
    thread.start()
    yield
    thread.join()


@pytest.fixture
def environment(server: ServerProcess, session: str, tmp_path: Path) -> dict[str, str]:
    """What points a worker at the server and a session of its own."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("HEADWAY_")}
    return {
        **others,
        "HEADWAY_TARGET": server.address,
        "HEADWAY_SESSION": session,
        "HEADWAY_SPOOL": str(tmp_path / "spool"),
        "PYTHONPATH": str(tmp_path),
        "PYTHONWARNINGS": "default",
    }


@pytest.fixture
def hw(
    server: ServerProcess, session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[headway.Client]:
    """A connection that looks into the worker's session."""
    monkeypatch.setenv("HEADWAY_SPOOL", str(tmp_path / "spool"))
    with headway.connect(server.address, session=session) as connection:
        yield connection


@pytest.fixture
def jobs(hw: headway.Client) -> Jobs:
    """The session's jobs by name; of several with one name, the newest."""
    return lambda: {job.name: job for job in reversed(list(hw.list(page_size=1000)))}


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A broker."""
    binary = find_binary()
    if binary is None:
        missing("Redis (Debian: apt-get install redis-server)")
    assert binary is not None
    with RedisServer(binary, tmp_path_factory.mktemp("redis")) as running:
        yield running
