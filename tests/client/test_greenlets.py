"""gevent and eventlet put greenlets in place of threads: the work goes on, and is reported, as without them."""

import pytest

import headway
from headway.v1 import job_pb2
from tests.client.test_lifecycle import only_job, run
from tests.support.server import ServerProcess

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all(); from gevent import sleep, spawn",
    "eventlet": "import eventlet; eventlet.monkey_patch(); from eventlet import sleep, spawn",
}
WORK = """
import warnings; warnings.simplefilter("ignore")
BEFORE
import signal, time
signal.alarm(20)

gaps = []
def look():
    last = time.monotonic()
    while True:
        sleep(0.01)
        gaps.append(time.monotonic() - last)
        last = time.monotonic()
spawn(look)

import headway
AFTER
with headway.connect() as hw, hw.job(size=30, labels={"a": "b"}) as job:
    for number in job.track(range(30)):
        job.count("seen")
        sleep(0.01)
    assert job.flush()
    job.results = hw.get(None, job.id).progress
assert [state.status for state in hw.watch(None, job.id)][-1] == 4
assert [found.id for found in hw.list()] == [job.id]
assert hw.results(None, job.id) == 30
assert len(gaps) > 20
"""


@pytest.mark.parametrize("library", PATCHES)
def test_a_patched_program_is_tracked_as_any_other(
    server: ServerProcess, session: str, hw: headway.Client, library: str
) -> None:
    script = WORK.replace("BEFORE", PATCHES[library]).replace("AFTER", "")
    done = run(script, server.address, session, timeout=40)
    assert (done.returncode, done.stderr) == (0, "")
    seen = only_job(hw)
    assert (seen.status, seen.progress, seen.counters["seen"]) == (job_pb2.JOB_STATUS_COMPLETED, 30, 30)


def test_a_program_may_be_patched_after_the_import(server: ServerProcess, session: str, hw: headway.Client) -> None:
    late = "import headway.client, headway._engine.engine, headway.meter\n" + PATCHES["gevent"]
    done = run(WORK.replace("BEFORE", late).replace("AFTER", ""), server.address, session, timeout=40)
    assert (done.returncode, done.stderr) == (0, "")
    assert only_job(hw).progress == 30


@pytest.mark.parametrize("library", PATCHES)
def test_a_patched_program_without_a_server_goes_on(session: str, library: str) -> None:
    script = (
        PATCHES[library]
        + """
import warnings; warnings.simplefilter("ignore")
import headway, signal
signal.alarm(20)
with headway.connect() as hw, hw.job(size=30) as job:
    for number in job.track(range(30)):
        sleep(0.001)
print("done")
"""
    )
    done = run(script, "127.0.0.1:9", session, timeout=40)
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_bars_in_greenlets(server: ServerProcess, session: str, hw: headway.Client) -> None:
    script = (
        PATCHES["gevent"]
        + """
import gevent, os, signal
from headway.tqdm import tqdm
signal.alarm(20)

def work(number):
    for _ in tqdm(range(20), desc=f"bar {number}", file=open(os.devnull, "w"), job=True):
        sleep(0.005)

gevent.joinall([spawn(work, number) for number in range(3)], raise_error=True)
"""
    )
    done = run(script, server.address, session, timeout=40)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted((job.name, job.status, job.progress) for job in hw.list()) == [
        (f"bar {number}", job_pb2.JOB_STATUS_COMPLETED, 20) for number in range(3)
    ]


def test_forks_of_a_patched_program(server: ServerProcess, session: str, hw: headway.Client) -> None:
    """As gunicorn's workers do: the connection is made before the fork, and used after it."""
    script = (
        PATCHES["gevent"]
        + """
import headway, logging, os, signal
signal.alarm(20)
# Faults that the client gets over are noted there.
logging.getLogger("headway").setLevel(logging.DEBUG)
logging.getLogger("headway").addHandler(logging.StreamHandler())
hw = headway.connect()
before = hw.job(name="before")
children = []
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        with hw.job(name="request", size=5) as job:
            for _ in job.track(range(5)):
                sleep(0.01)
        raise SystemExit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
before.finish()
hw.close()
"""
    )
    done = run(script, server.address, session, timeout=40)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted((job.name, job.status, job.progress) for job in hw.list()) == [
        ("before", job_pb2.JOB_STATUS_COMPLETED, 0),
        *[("request", job_pb2.JOB_STATUS_COMPLETED, 5)] * 5,
    ]
