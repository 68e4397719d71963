"""What is said late: at the end of a process, after the connection was closed, or by nobody at all."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

import headway
from headway._engine.lifecycle import engine_for
from headway._spool.spool import SpoolRecord
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from tests.client.test_lifecycle import only_job, run
from tests.support.server import ServerProcess


def eventually(true: Callable[[], bool], seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def test_an_end_in_an_atexit_handler_is_delivered_whenever_that_runs(
    server: ServerProcess, session: str, hw: headway.Client
) -> None:
    script = """
import atexit, time
def end():
    began = time.monotonic()
    for job in jobs: job.finish()
    print(time.monotonic() - began)
# Runs after what headway does at the end, and before it.
atexit.register(end)
import headway
hw = headway.connect()
jobs = [hw.job() for _ in range(2)]
jobs[0].advance(3)
"""
    done = run(script, server.address, session)
    assert done.returncode == 0
    # Headway has told by then that nobody has ended them.
    assert {job.status for job in hw.list()} == {job_pb2.JOB_STATUS_FAILED}
    assert float(done.stdout) < 1.5

    before = script.replace("atexit.register(end)\nimport headway", "import headway\natexit.register(end)")
    done = run(before, server.address, session)
    assert (done.returncode, done.stderr) == (0, "")
    assert [job.status for job in hw.list()][:2] == [job_pb2.JOB_STATUS_COMPLETED] * 2


LATE = """
import atexit, time
def end():
    began = time.monotonic()
    job.finish()
    print(time.monotonic() - began)
atexit.register(end)
import headway
hw = headway.connect()
job = hw.job(SETTINGS)
job.advance(3)
hw.close()
"""


def test_an_end_after_all_else_is_delivered(server: ServerProcess, session: str, hw: headway.Client) -> None:
    done = run(LATE.replace("SETTINGS", ""), server.address, session)
    assert (done.returncode, done.stderr) == (0, "")
    seen = only_job(hw)
    assert (seen.status, seen.progress) == (job_pb2.JOB_STATUS_COMPLETED, 3)
    assert float(done.stdout) < 1.5


def test_an_end_after_all_else_without_a_server_is_kept_and_said(session: str, spool: Path) -> None:
    done = run(LATE.replace("SETTINGS", ""), "127.0.0.1:9", session)
    assert done.returncode == 0
    assert "headway flush" in done.stderr
    assert "Traceback" not in done.stderr
    (spool_file,) = spool.iterdir()
    assert isinstance(SpoolRecord.decode(spool_file.read_bytes()).requests[-1], rpc.FinishJobRequest)


def test_an_end_after_the_connection_was_closed_is_delivered(server: ServerProcess, session: str) -> None:
    hw = headway.connect(server.address, session=session)
    job = hw.job()
    job.advance(2)
    hw.close()
    job.advance(3)
    ending = threading.Thread(target=job.finish)
    ending.start()
    ending.join(15)
    with headway.connect(server.address, session=session) as other:
        seen = other.get(None, job.id)
        assert (seen.status, seen.progress) == (job_pb2.JOB_STATUS_COMPLETED, 5)


def test_a_closed_client_with_a_running_job_keeps_nothing(server: ServerProcess, session: str) -> None:
    hw = headway.connect(server.address, session=session)
    job = hw.job()
    job.advance(2)
    engine = engine_for(hw.target)
    others = engine._holders - 1
    hw.close()
    assert eventually(lambda: job._job_state not in engine._dispatcher.job_states)
    if not others:
        assert eventually(lambda: engine._thread is None and engine._dispatcher.channel is None)


def test_dropped_jobs_that_wait_for_a_worker_are_not_held(server: ServerProcess, session: str) -> None:
    with headway.connect(server.address, session=session) as hw:
        held = [weakref.ref(hw.job(pending=True)) for _ in range(20)]
        hw.job().flush()

        def gone() -> bool:
            gc.collect()
            return not any(job() for job in held)

        assert eventually(gone)


def test_a_thread_may_outlive_the_main_thread(server: ServerProcess, session: str, hw: headway.Client) -> None:
    script = """
import headway, threading, time
def work():
    threading.main_thread().join()
    with headway.connect() as hw, hw.job(size=30) as job:
        for _ in job.track(range(30)):
            time.sleep(0.01)
        assert job.flush()
        with hw.job() as other:
            other.advance(2)
threading.Thread(target=work).start()
"""
    done = run(script, server.address, session)
    assert (done.returncode, done.stderr) == (0, "")
    assert [(job.status, job.progress) for job in hw.list()] == [
        (job_pb2.JOB_STATUS_COMPLETED, 2),
        (job_pb2.JOB_STATUS_COMPLETED, 30),
    ]


def test_no_server_at_all_costs_a_script_hardly_any_time(session: str, spool: Path) -> None:
    script = """
import headway, time
began = time.process_time(), time.monotonic()
with headway.connect() as hw, hw.job(size=3) as job:
    for _ in job.track(range(3)):
        time.sleep(0.1)
print(time.monotonic() - began[1])
"""
    done = run(script, "127.0.0.1:9", session)
    assert (done.returncode, float(done.stdout) < 3) == (0, True)
    assert "`headway serve`" in done.stderr
    assert len(list(spool.iterdir())) == 1


def test_a_server_that_was_there_is_waited_for(own_server: ServerProcess, session: str) -> None:
    script = """
import headway, sys
hw = headway.connect()
job = hw.job()
assert job.flush()
print("ready", flush=True)
sys.stdin.readline()
job.advance(4)
job.finish()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "HEADWAY_TARGET": own_server.address, "HEADWAY_SESSION": session},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        own_server.kill()
        threading.Timer(0.5, own_server.start).start()
        process.communicate("\n", timeout=30)
    with headway.connect(own_server.address, session=session) as hw:
        seen = only_job(hw)
        assert (seen.status, seen.progress) == (job_pb2.JOB_STATUS_COMPLETED, 4)


def test_a_server_that_returns_after_long_is_told_the_end(own_server: ServerProcess, session: str) -> None:
    with headway.connect(own_server.address, session=session, exit_timeout=10) as hw:
        job = hw.job()
        assert job.flush()
        own_server.kill()
        connection_state = hw._engine.connection_state
        # Twenty failures: the next attempt is seconds away, and the server has been unreachable for long.
        for number in range(20):
            connection_state.lost(
                headway.HeadwayError(grpc.StatusCode.UNAVAILABLE, "refused"), connection_state.retry_at + number
            )
        connection_state.answered_at -= 60
        own_server.start()
        job.finish()
    with headway.connect(own_server.address, session=session) as hw:
        assert hw.get(None, job.id).status == job_pb2.JOB_STATUS_COMPLETED


def test_counts_need_the_global_lock(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(RuntimeError, match="PYTHON_GIL=1"):
        headway.connect("127.0.0.1:9", session=session)


def test_the_client_works_where_there_is_no_unix(server: ServerProcess, session: str, hw: headway.Client) -> None:
    script = """
import os, signal, sys
sys.modules["fcntl"] = None
import headway, headway.client
for name in ("register_at_fork", "geteuid", "getuid", "memfd_create", "O_NOFOLLOW", "O_DIRECTORY", "fork"):
    if hasattr(os, name): delattr(os, name)
with headway.connect() as hw, hw.job() as job:
    job.advance(3)
"""
    done = run(script, server.address, session)
    assert (done.returncode, done.stderr) == (0, "")
    assert only_job(hw).status == job_pb2.JOB_STATUS_COMPLETED
    # What cannot be delivered cannot be kept there either, which is said.
    done = run(script, "127.0.0.1:9", session)
    assert done.returncode == 0
    assert "not delivered" in done.stderr
    assert "Traceback" not in done.stderr
