"""Exits and forks: the interpreter never hangs, and nothing is lost that could be delivered."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import headway
from headway._spool.spool import SpoolRecord
from headway.v1 import job_pb2
from tests.client.fakes import Proxy
from tests.support.server import ServerProcess


def run(script: str, address: str, session: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    environment = {
        # gRPC may speak: on a fork with a channel open it does.
        **{name: value for name, value in os.environ.items() if not name.startswith(("HEADWAY_", "GRPC_"))},
        "HEADWAY_TARGET": address,
        "HEADWAY_SESSION": session,
        "HEADWAY_SPOOL": os.environ["HEADWAY_SPOOL"],
    }
    return subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def only_job(hw: headway.Client) -> job_pb2.Job:
    (job,) = hw.list()
    return job


UNENDED = "import headway; hw = headway.connect(); job = hw.job(); job.advance(12); job.count('added', 3)"


@pytest.mark.parametrize(
    ("last_line", "exit_status", "status", "error"),
    [
        ("", 0, job_pb2.JOB_STATUS_FAILED, "The worker's process ended and did not end the job."),
        ("raise KeyError('x')", 1, job_pb2.JOB_STATUS_FAILED, "KeyError: 'x'"),
        ("raise KeyboardInterrupt", -2, job_pb2.JOB_STATUS_CANCELLED, "KeyboardInterrupt"),
        ("hw.close()", 0, job_pb2.JOB_STATUS_RUNNING, ""),
    ],
)
def test_an_exit_without_goodbye_delivers_the_last_state_and_tells_the_end(
    server: ServerProcess,
    session: str,
    hw: headway.Client,
    last_line: str,
    exit_status: int,
    status: job_pb2.JobStatus,
    error: str,
) -> None:
    done = run(f"{UNENDED}; {last_line}", server.address, session)
    assert done.returncode == exit_status
    assert ("was not ended" in done.stderr) == (not last_line)
    seen = only_job(hw)
    assert (seen.status, seen.progress, seen.counters["added"]) == (status, 12, 3)
    assert seen.error.message == error


def test_an_uncaught_exception_keeps_its_exit_status(server: ServerProcess, session: str, hw: headway.Client) -> None:
    script = """
import headway
with headway.connect() as hw, hw.job() as job:
    job.advance(2)
    raise RuntimeError("broken")
"""
    done = run(script, server.address, session)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "RuntimeError: broken"
    assert only_job(hw).error.message == "RuntimeError: broken"


@pytest.mark.parametrize(
    ("code", "exit_status", "status", "message"),
    [
        ("0", 0, job_pb2.JOB_STATUS_COMPLETED, ""),
        ("3", 3, job_pb2.JOB_STATUS_FAILED, "SystemExit: 3"),
        ("'no such file'", 1, job_pb2.JOB_STATUS_FAILED, "SystemExit: no such file"),
    ],
)
def test_an_exit_in_the_middle_ends_the_job_by_its_status(
    server: ServerProcess,
    session: str,
    hw: headway.Client,
    code: str,
    exit_status: int,
    status: job_pb2.JobStatus,
    message: str,
) -> None:
    script = f"""
import headway, sys
with headway.connect() as hw, hw.job() as job:
    job.advance(2)
    sys.exit({code})
"""
    done = run(script, server.address, session)
    assert (done.returncode, done.stderr) == (exit_status, "no such file\n" if exit_status == 1 else "")
    seen = only_job(hw)
    assert (seen.status, seen.error.message, seen.progress) == (status, message, 2)


def test_a_process_that_stops_dead_hangs_nowhere_and_keeps_what_was_acknowledged(
    server: ServerProcess, session: str, hw: headway.Client
) -> None:
    script = """
import headway, os
with headway.connect() as hw, hw.job() as job:
    job.advance(12)
    job.checkpoint({"offset": 12})
    assert job.flush()
    job.advance(5)
    os._exit(9)
"""
    done = run(script, server.address, session)
    assert (done.returncode, done.stderr) == (9, "")
    seen = only_job(hw)
    assert seen.status == job_pb2.JOB_STATUS_RUNNING
    assert seen.progress in (12, 17)
    assert hw.variables(None, seen.id) == {"offset": 12}


def test_what_was_said_just_before_the_exit_is_delivered(
    server: ServerProcess, session: str, hw: headway.Client
) -> None:
    """The reporting thread is busy, and hears of it when the exit has begun."""
    job = hw.job()
    script = f"""
import headway, time
connection = headway.connect()
connection._engine._post(lambda: time.sleep(0.3))
connection.fetch(None, {job.id!r}).part("p").advance(3)
"""
    done = run(script, server.address, session)
    assert (done.returncode, done.stderr) == (0, "")
    assert dict(hw.get(None, job.id).parts) == {"p": 3}


def test_an_interrupt_cancels_the_job(server: ServerProcess, session: str, hw: headway.Client) -> None:
    script = """
import headway, os, signal
with headway.connect() as hw, hw.job() as job:
    for _ in job.track(range(10)):
        if job.progress == 4:
            os.kill(os.getpid(), signal.SIGINT)
"""
    done = run(script, server.address, session)
    assert done.returncode == -2
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"
    seen = only_job(hw)
    assert (seen.status, seen.progress) == (job_pb2.JOB_STATUS_CANCELLED, 4)


DAEMON = """
import headway, headway._engine.lifecycle, threading
headway._engine.lifecycle.EXIT_TIMEOUT = 2
hw = headway.connect()
job = hw.job()
begun = threading.Event()
def work():
    while True:
        job.advance()
        begun.set()
threading.Thread(target=work, daemon=True).start()
begun.wait()
"""


def test_ctrl_c_ends_a_program_as_it_would_without_a_tracker(session: str) -> None:
    script = """
import os, signal, headway
from headway._engine import lifecycle
lifecycle.EXIT_TIMEOUT = 0.2
job = headway.connect(exit_timeout=0.2).job()
os.kill(os.getpid(), signal.SIGINT)
"""
    done = run(script, "127.0.0.1:9", session)
    assert done.returncode == -signal.SIGINT


def test_a_daemon_thread_at_work_does_not_hold_the_exit(
    server: ServerProcess, session: str, hw: headway.Client
) -> None:
    done = run(DAEMON, server.address, session)
    assert done.returncode == 0
    assert "was not ended" in done.stderr
    assert only_job(hw).progress > 0


def test_a_daemon_thread_at_work_does_not_hold_an_exit_with_the_server_away(session: str, spool: Path) -> None:
    began = time.monotonic()
    done = run(DAEMON, "127.0.0.1:9", session)
    assert time.monotonic() - began < 8
    assert done.returncode == 0
    assert all(line.startswith("headway: ") for line in done.stderr.splitlines())
    assert len(list(spool.iterdir())) == 1


def test_an_exit_with_the_server_away_is_bounded(session: str) -> None:
    script = """
import headway, headway._engine.lifecycle
headway._engine.lifecycle.EXIT_TIMEOUT = 0.5
job = headway.connect().job()
job.advance()
"""
    began = time.monotonic()
    done = run(script, "127.0.0.1:9", session)
    assert time.monotonic() - began < 8
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert all(line.startswith("headway: ") for line in done.stderr.splitlines())
    unended, nobody, spooled = done.stderr.splitlines()
    assert "was not ended" in unended
    assert "headway serve" in nobody
    assert "headway flush" in spooled


IMPATIENT = """
import headway, headway._spool.spool, os, signal, threading

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

hw = headway.connect()
job = hw.job()
job.advance(7)
flush, write = hw._engine.flush, headway._spool.spool.write

def flushing(*arguments, **options):
    threading.Timer(0.2, interrupt).start()
    return flush(*arguments, **options)

def writing(*arguments):
    interrupt()
    return write(*arguments)

hw._engine.flush, headway._spool.spool.write = flushing, writing
print("done", flush=True)
"""


@pytest.mark.parametrize(("last_line", "exit_status"), [("", 0), ("hw.close()", -2)])
def test_a_second_interrupt_loses_nothing(session: str, spool: Path, last_line: str, exit_status: int) -> None:
    """Ctrl-C while the exit waits for the server, and once more while it writes down what is left."""
    began = time.monotonic()
    # Somebody takes the connection and says nothing: that is worth a wait.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = run(IMPATIENT + last_line, f"127.0.0.1:{listener.getsockname()[1]}", session)
    assert time.monotonic() - began < 8
    assert (done.returncode, done.stdout) == (exit_status, "done\n")
    foreign = [line for line in done.stderr.splitlines() if not line.startswith("headway: ")]
    assert foreign[-1:] == (["KeyboardInterrupt"] if last_line else [])
    (spool_file,) = spool.iterdir()
    assert [type(request).__name__ for request in SpoolRecord.decode(spool_file.read_bytes()).requests] == [
        "CreateJobRequest",
        "ReportProgressRequest",
        "FailJobRequest",
    ]


def test_an_exit_in_the_middle_of_an_answer_does_not_hang(server: ServerProcess, session: str) -> None:
    script = """
import headway, headway._engine.lifecycle, sys
headway._engine.lifecycle.EXIT_TIMEOUT = 0.5
job = headway.connect().job()
job.advance()
job.flush()
print("ready", flush=True)
sys.stdin.readline()
job.advance()
sys.exit(7)
"""
    with Proxy(server.address) as proxy:
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, "HEADWAY_TARGET": proxy.address, "HEADWAY_SESSION": session},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            proxy.swallow()
            process.communicate("\n", timeout=10)
        assert process.returncode == 7


FORK = """
import headway, os, sys, signal
signal.alarm(15)
with headway.connect() as hw, hw.job(size=30) as job:
    job.advance(10)
    assert job.flush()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        job.advance(5)
        job.part("child").advance(7)
        sys.exit(0)
    job.advance(1)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
    job.advance(1)
"""


def test_a_forked_child_reports_a_part_of_its_own(server: ServerProcess, session: str, hw: headway.Client) -> None:
    done = run(FORK, server.address, session)
    assert (done.returncode, done.stderr) == (0, "")
    seen = only_job(hw)
    assert seen.status == job_pb2.JOB_STATUS_COMPLETED
    assert sorted(seen.parts.values()) == [5, 7, 12]
    assert (seen.parts[""], seen.parts["child"], seen.progress) == (12, 7, 24)


STILL = """
import os, sys, pathlib

def look():
    for name in pathlib.Path("/proc/self/task").glob("*/comm"):
        try:
            names.add(name.read_text())
        except OSError:
            pass

# Of the hooks before a fork those that came first are called last.
os.register_at_fork(before=look)
names = set()

import headway

with headway.connect() as hw, hw.job() as job:
    for _ in range(20):
        job.advance()
        hw.get(None, job.id)
        assert job.flush()
        look()
        assert "event_engine\\n" in names, names
        names.clear()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        print(*(name for name in names if name.startswith(("event_engine", "grpc_"))), end="")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux shows the threads of a process")
def test_nothing_of_grpc_is_left_when_a_process_forks(server: ServerProcess, session: str) -> None:
    done = run(STILL, server.address, session)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


MULTIPROCESSING = """
import headway, multiprocessing, signal
signal.alarm(18)

def forked(job, n):
    for _ in job.track(range(n)):
        pass

def spawned(session, job_id, n):
    signal.alarm(15)
    with headway.connect(session=session) as hw:
        hw.fetch(None, job_id).part(f"spawned {n}").advance(n)

if __name__ == "__main__":
    with headway.connect() as hw, hw.job(size=60) as job:
        fork = multiprocessing.get_context("METHOD")
        arguments = [(job, n) for n in (10, 20, 30)] if "METHOD" == "fork" else [
            (job.session, job.id, n) for n in (10, 20, 30)]
        target = forked if "METHOD" == "fork" else spawned
        children = [fork.Process(target=target, args=a) for a in arguments]
        for child in children: child.start()
        for child in children: child.join()
        assert [child.exitcode for child in children] == [0, 0, 0]
"""


def test_multiprocessing_by_fork(server: ServerProcess, session: str, hw: headway.Client) -> None:
    done = run(MULTIPROCESSING.replace("METHOD", "fork"), server.address, session)
    assert (done.returncode, done.stderr) == (0, "")
    assert only_job(hw).progress == 60


def test_multiprocessing_by_spawn(server: ServerProcess, session: str, hw: headway.Client, tmp_path: Path) -> None:
    path = tmp_path / "spawning.py"
    path.write_text(MULTIPROCESSING.replace("METHOD", "spawn"))
    done = run(f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')", server.address, session)
    assert (done.returncode, done.stderr) == (0, "")
    assert dict(only_job(hw).parts) == {"spawned 10": 10, "spawned 20": 20, "spawned 30": 30}


POOLS = """
import headway, multiprocessing, os, signal, sys
from concurrent.futures import ProcessPoolExecutor

signal.alarm(18)
connections = {}

def work(task):
    job_id, n = task
    if os.getpid() not in connections:
        connections[os.getpid()] = headway.connect()
    job = connections[os.getpid()].fetch(None, job_id)
    part = job.part(f"part {n}")
    for _ in part.track(range(n)):
        part.count("seen")
    if KIND == "terminated":
        job.flush()
    return n

METHOD, KIND = sys.argv[1:]

if __name__ == "__main__":
    context = multiprocessing.get_context(METHOD)
    with headway.connect() as hw, hw.job(size=60) as job:
        tasks = [(job.id, n) for n in (10, 20, 30)]
        if KIND == "executor":
            with ProcessPoolExecutor(2, mp_context=context) as executor:
                assert list(executor.map(work, tasks)) == [10, 20, 30]
        elif KIND == "processes":
            children = [context.Process(target=work, args=(task,)) for task in tasks]
            for child in children: child.start()
            for child in children: child.join()
            assert [child.exitcode for child in children] == [0, 0, 0]
        else:
            # The end of the block of a Pool kills its processes, so they have to flush their reports before.
            with context.Pool(2) as pool:
                assert pool.map(work, tasks) == [10, 20, 30]
                if KIND == "closed":
                    pool.close()
                    pool.join()
"""


@pytest.mark.parametrize("kind", ["processes", "closed", "terminated", "executor"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_deliver_their_reports_however_they_start(
    server: ServerProcess, session: str, hw: headway.Client, tmp_path: Path, method: str, kind: str
) -> None:
    path = tmp_path / "pools.py"
    path.write_text(POOLS)
    script = f"import runpy, sys; sys.argv = [{str(path)!r}, {method!r}, {kind!r}]"
    script += f"; runpy.run_path({str(path)!r}, run_name='__main__')"
    done = run(script, server.address, session)
    assert (done.returncode, done.stderr) == (0, "")
    seen = only_job(hw)
    assert seen.status == job_pb2.JOB_STATUS_COMPLETED
    assert dict(seen.parts) == {"part 10": 10, "part 20": 20, "part 30": 30}
    assert dict(seen.counters) == {"seen": 60}


def test_a_fork_with_the_server_away(session: str) -> None:
    done = run(
        FORK.replace("assert job.flush()", "").replace("headway.connect()", "headway.connect(exit_timeout=0.2)"),
        "127.0.0.1:9",
        session,
    )
    assert done.returncode == 0, done.stderr


def test_the_import_brings_neither_server_nor_display() -> None:
    script = """
import sys, headway
foreign = {"peewee", "rich", "headway_server", "headway.aio", "headway.cli", "platformdirs", "argcomplete"}
print(sorted(foreign & set(sys.modules)), headway.__version__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ")
