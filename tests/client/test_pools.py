"""Pools end their workers with SIGTERM as soon as they have the results: nothing of what those counted is lost."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import headway
from headway import aio
from headway.v1 import job_pb2
from tests.client.test_lifecycle import only_job, run
from tests.support.server import ServerProcess

METHODS = ["fork", "spawn", "forkserver"]

POOL = """
import headway, multiprocessing, signal, sys

signal.alarm(60)
METHOD, N, OPTIONS = sys.argv[1], int(sys.argv[2]), eval(sys.argv[3])

def begin(passed):
    global job
    job = passed

def work(number):
    job.advance()
    job.count("seen")
    if number % 50 == 0:
        job.record_error(number)

if __name__ == "__main__":
    context = multiprocessing.get_context(METHOD)
    with headway.connect() as hw, hw.job(size=N) as job:
        with context.Pool(2, begin, (job,), **OPTIONS) as pool:
            pool.map(work, range(N), **({"chunksize": 1} if OPTIONS else {}))
"""


def run_file(tmp_path: Path, text: str, server: ServerProcess, session: str, *arguments: object) -> None:
    path = tmp_path / "work.py"
    path.write_text(text)
    script = f"import runpy, sys; sys.argv = {[str(path), *map(str, arguments)]!r}"
    script += f"; runpy.run_path({str(path)!r}, run_name='__main__')"
    done = run(script, server.address, session, timeout=90)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_loses_nothing_of_a_job_that_is_passed_to_it(
    server: ServerProcess, session: str, hw: headway.Client, tmp_path: Path, method: str
) -> None:
    run_file(tmp_path, POOL, server, session, method, 8000, {})
    seen = only_job(hw)
    assert (seen.status, seen.progress, seen.counters["seen"], seen.error_count) == (
        job_pb2.JOB_STATUS_COMPLETED,
        8000,
        8000,
        160,
    )


def test_workers_that_live_for_one_task_share_few_parts(
    server: ServerProcess, session: str, hw: headway.Client, tmp_path: Path
) -> None:
    run_file(tmp_path, POOL, server, session, "fork", 40, {"maxtasksperchild": 1})
    seen = only_job(hw)
    assert (seen.status, seen.progress, seen.counters["seen"]) == (job_pb2.JOB_STATUS_COMPLETED, 40, 40)
    # Two at a time, and one that has come before another is quite gone.
    assert len([part for part in seen.parts if part.startswith("@")]) < 10


INHERITED = """
import headway, multiprocessing, signal
signal.alarm(60)

def work(number):
    job.advance()
    return number

with headway.connect() as hw, hw.job(size=100) as job:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(work, range(100)) == list(range(100))
"""


def test_a_pool_loses_nothing_of_an_inherited_job(server: ServerProcess, session: str, hw: headway.Client) -> None:
    for _ in range(5):
        done = run(INHERITED, server.address, session)
        assert (done.returncode, done.stderr) == (0, "")
    jobs = list(hw.list())
    assert [(job.status, job.progress) for job in jobs] == [(job_pb2.JOB_STATUS_COMPLETED, 100)] * 5


BARS = """
import multiprocessing, os, signal, sys
from headway.tqdm import tqdm

signal.alarm(60)

def work(number):
    for _ in tqdm(range(10), desc=f"bar {number}", position=number):
        pass

if __name__ == "__main__":
    sys.stderr = open(os.devnull, "w")
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        pool.map(work, range(6), chunksize=1)
"""


@pytest.mark.parametrize("method", METHODS)
def test_bars_in_a_pool_are_completed(
    server: ServerProcess, session: str, hw: headway.Client, tmp_path: Path, method: str
) -> None:
    path = tmp_path / "bars.py"
    path.write_text(BARS)
    subprocess.run(
        [sys.executable, str(path), method],
        env={**os.environ, "HEADWAY_TARGET": server.address, "HEADWAY_SESSION": session},
        check=True,
        timeout=90,
        stderr=subprocess.DEVNULL,
    )
    seen = {job.name: (job.status, job.progress, job.size) for job in hw.list()}
    assert seen == {f"bar {number}": (job_pb2.JOB_STATUS_COMPLETED, 10, 10) for number in range(6)}


def test_a_worker_that_is_stuck_in_a_library_is_killed_all_the_same(server: ServerProcess, session: str) -> None:
    script = """
import ctypes, headway, multiprocessing, os, time
import headway._engine.termination as termination
termination.KILL_AFTER = 0.5

def stuck(ready):
    job.advance()
    ready.set()
    # A call that is begun again whatever signal comes, as those of many libraries are.
    libc = ctypes.CDLL(None)
    while True:
        libc.sleep(600)

with headway.connect() as hw, hw.job() as job:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=stuck, args=(ready,))
    child.start()
    ready.wait()
    child.terminate()
    child.join(20)
    print(child.exitcode)
"""
    done = run(script, server.address, session, timeout=40)
    assert done.returncode == 0
    assert done.stdout in ("-9\n", "-15\n")


def test_a_handler_of_ones_own_is_left_alone(server: ServerProcess, session: str, hw: headway.Client) -> None:
    script = """
import headway, os, signal, sys, time
with headway.connect() as hw, hw.job() as job:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    pid = os.fork()
    if pid == 0:
        job.advance(2)
        while True: time.sleep(1)
    time.sleep(0.3)
    os.kill(pid, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = run(script, server.address, session)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
    assert only_job(hw).progress == 2


def test_a_killed_child_keeps_its_number_to_itself(server: ServerProcess, session: str, hw: headway.Client) -> None:
    script = """
import headway, os, signal
with headway.connect() as hw, hw.job() as job:
    for end in (signal.SIGKILL, 0, 0):
        pid = os.fork()
        if pid == 0:
            job.advance(5)
            assert job.flush()
            if end: os.kill(os.getpid(), end)
            raise SystemExit(0)
        os.waitpid(pid, 0)
"""
    done = run(script, server.address, session)
    assert (done.returncode, done.stderr) == (0, "")
    assert dict(only_job(hw).parts) == {"@1": 5, "@2": 10}


def test_a_passed_job_belongs_to_its_creator(server: ServerProcess, session: str, hw: headway.Client) -> None:
    with hw.job(name="Mine", size=9) as job:
        passed = pickle.loads(pickle.dumps(job))
        assert (passed.id, passed.name, passed.size) == (job.id, "Mine", 9)
        assert pickle.loads(pickle.dumps(job)) is passed
        with passed:
            passed.advance(4)
        assert passed.flush()
        assert hw.get(None, job.id).status == job_pb2.JOB_STATUS_RUNNING
        job.advance(2)
    assert only_job(hw).progress == 6


async def test_a_job_of_asyncio_can_be_passed_too(server: ServerProcess, session: str, hw: headway.Client) -> None:
    async with aio.connect(server.address, session=session) as other, other.job() as job:
        passed = pickle.loads(pickle.dumps(job))
        assert isinstance(passed, aio.Job)
        passed.advance(4)
        assert await passed.flush()
    assert only_job(hw).progress == 4


def test_what_cannot_be_passed_says_what_to_do(server: ServerProcess, session: str, hw: headway.Client) -> None:
    with hw.job() as job, pytest.raises(TypeError, match=r"job\.part\(\) in the other process"):
        pickle.dumps(job.part("a"))
    with (
        headway.connect("127.0.0.1:9", session=session, token="hw_secret") as other,
        other.job() as job,
        pytest.raises(TypeError, match="HEADWAY_TOKEN"),
    ):
        pickle.dumps(job)
