"""A script that only changed its import: its bars stay what they were, and are jobs."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tqdm import tqdm as plain_tqdm

import headway
from headway.v1 import job_pb2
from tests.cli.run import HEADWAY
from tests.hooks.conftest import Jobs
from tests.support.server import ServerProcess
from tests.support.waiting import until

RUNNING, COMPLETED, FAILED, CANCELLED = (
    job_pb2.JOB_STATUS_RUNNING,
    job_pb2.JOB_STATUS_COMPLETED,
    job_pb2.JOB_STATUS_FAILED,
    job_pb2.JOB_STATUS_CANCELLED,
)
Environment = dict[str, str]


def run(script: str, environment: Environment, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the script, as a file with a name of its own."""
    path = Path(environment["PYTHONPATH"], "script.py")
    path.write_text(f"from headway.tqdm import tqdm, trange\n{script}")
    return subprocess.run(
        [*words, sys.executable, str(path)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def spawn(script: str, environment: Environment) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", f"from headway.tqdm import tqdm, trange\n{script}"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_loop_becomes_a_job(environment: Environment, jobs: Jobs) -> None:
    done = run(
        """
for _ in tqdm(range(40), desc="Read files", unit=" files"):
    pass
for _ in trange(30):
    pass
for _ in tqdm(iter("abc"), desc="no size"):
    pass
""",
        environment,
    )
    assert done.returncode == 0
    assert "100%|" in done.stderr and "40/40" in done.stderr
    found = jobs()
    assert set(found) == {"Read files", "script.py", "no size"}
    read, ranged, unsized = found["Read files"], found["script.py"], found["no size"]
    assert {job.status for job in found.values()} == {COMPLETED}
    assert (read.progress, read.size, read.unit) == (40, 40, "files")
    assert (ranged.progress, ranged.size, ranged.unit) == (30, 30, "")
    assert (unsized.progress, unsized.size) == (3, 0)


def test_a_bar_moved_by_hand_becomes_a_job(environment: Environment, jobs: Jobs, hw: headway.Client) -> None:
    done = run(
        """
bar = tqdm(total=100, desc="by hand", initial=10)
bar.update(40)
bar.update(-5)
bar.set_postfix(loss=0.25)
bar.close()
with tqdm(total=8, desc="blocks", unit="B", unit_scale=512) as bar:
    bar.update(3)
    bar.set_description("the second half")
    bar.update(5)
    bar.job.count("odd", 2)
    bar.job.results = {"blocks": 8}
bar = tqdm(total=5, desc="again")
bar.update(5)
bar.reset(total=7)
bar.update(2)
bar.close()
""",
        environment,
    )
    assert done.returncode == 0, done.stderr
    found = jobs()
    assert {job.status for job in found.values()} == {COMPLETED}
    assert (found["by hand"].progress, found["by hand"].size, found["by hand"].message) == (45, 100, "loss=0.25")
    blocks = found["blocks"]
    assert (blocks.progress, blocks.size, blocks.unit) == (4096, 4096, "B")
    assert (blocks.message, blocks.counters["odd"]) == ("the second half", 2)
    assert hw.results(None, blocks.id) == {"blocks": 8}
    assert (found["again"].progress, found["again"].size) == (2, 7)


def test_progress_is_seen_while_the_loop_runs(environment: Environment, jobs: Jobs) -> None:
    script = """
for n in tqdm(range(10), desc="slow"):
    if n == 4:
        input()
bar = tqdm(total=10, desc="silent", disable=True)
bar.update(3)
input()
"""
    with spawn(script, environment) as process:
        until(lambda: "slow" in jobs())
        assert jobs()["slow"].status == RUNNING
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        until(lambda: "silent" in jobs() and jobs()["silent"].progress == 3)
        assert jobs()["silent"].status == RUNNING
        process.communicate("\n", timeout=20)
    assert (jobs()["slow"].status, jobs()["slow"].progress) == (COMPLETED, 10)
    assert jobs()["silent"].error.message == "the bar was let go at 3 of 10"


def test_a_disabled_bar_prints_nothing_and_is_tracked(environment: Environment, jobs: Jobs) -> None:
    done = run(
        """
import asyncio
for _ in tqdm(range(40), desc="loop", disable=True):
    pass
with tqdm(total=10, desc="hand", disable=None) as bar:
    bar.update(10)
async def main():
    async for _ in tqdm(range(5), desc="async", disable=True):
        pass
asyncio.run(main())
""",
        environment,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {name: (job.status, job.progress) for name, job in jobs().items()} == {
        "loop": (COMPLETED, 40),
        "hand": (COMPLETED, 10),
        "async": (COMPLETED, 5),
    }


def test_how_a_loop_was_left_tells_how_the_job_ends(environment: Environment, jobs: Jobs) -> None:
    done = run(
        """
import asyncio, threading

def broken(n):
    raise OSError(f"no disk {n}")

def source():
    yield 1
    raise LookupError("dry")

def passed_on():
    for n in tqdm(range(9), desc="passed on"):
        yield n

def by_break():
    kept = []
    for n in tqdm(range(9), desc="break"):
        try:
            raise ValueError(n)
        except ValueError as error:
            kept.append(error)
        if n == 3:
            break

def by_return():
    for n in tqdm(range(9), desc="return"):
        return n

def by_raise():
    with open(__file__):
        for n in tqdm(range(9), desc="raise"):
            if n == 3:
                broken(n)

def in_with():
    with tqdm(range(9), desc="with") as bar:
        for n in bar:
            broken(n)

def in_finally():
    bar = tqdm(total=9, desc="finally")
    try:
        broken(1)
    finally:
        bar.close()

def of_source():
    for _ in tqdm(source(), desc="source"):
        pass

def interrupted():
    with tqdm(range(9), desc="interrupted") as bar:
        raise KeyboardInterrupt

def forgotten():
    tqdm(total=9, desc="forgotten").update(2)

def zipped():
    for _ in zip(tqdm(range(9), desc="zipped"), range(2)):
        pass

def while_handling():
    try:
        broken(0)
    except OSError:
        for _ in tqdm(range(2), desc="while handling"):
            pass

def async_left():
    async def main():
        async for n in tqdm(range(9), desc="async break"):
            if n == 3:
                break
    asyncio.run(main())

def async_raise():
    async def main():
        async for n in tqdm(range(9), desc="async raise"):
            broken(n)
    asyncio.run(main())

def generator_left():
    for n in passed_on():
        break

for attempt in (by_break, by_return, by_raise, in_with, in_finally, of_source, interrupted, forgotten, zipped,
                while_handling, generator_left, async_left, async_raise):
    try:
        attempt()
    except BaseException as error:
        del error
threading.Event().wait(1.2)
""",
        environment,
    )
    assert done.returncode == 0, done.stderr
    seen = {name: (job.status, job.error.message) for name, job in jobs().items()}
    assert seen == {
        "break": (COMPLETED, ""),
        "return": (COMPLETED, ""),
        "raise": (FAILED, "an exception left the loop (script.py, line 6)"),
        "with": (FAILED, "OSError: no disk 0"),
        "finally": (FAILED, "OSError: no disk 1"),
        "source": (FAILED, "LookupError: dry"),
        "interrupted": (CANCELLED, "KeyboardInterrupt"),
        "forgotten": (FAILED, "the bar was let go at 2 of 9"),
        "zipped": (COMPLETED, ""),
        "while handling": (COMPLETED, ""),
        "passed on": (COMPLETED, ""),
        "async break": (COMPLETED, ""),
        "async raise": (FAILED, "an exception left the loop (script.py, line 6)"),
    }
    assert jobs()["break"].progress == 3


@pytest.mark.parametrize(
    "loop",
    [
        "for n in tqdm(range(9)):\n    work(n)",
        "bar = tqdm(total=9)\nfor n in range(9):\n    work(n)\n    bar.update()",
        "for n in tqdm(range(9), disable=True):\n    work(n)",
        "[work(n) for n in tqdm(range(9))]",
        "async def main():\n    async for n in tqdm(range(9)):\n        work(n)\nasyncio.run(main())",
        "def rows():\n    for n in tqdm(range(9)):\n        work(n)\n        yield n\nlist(rows())",
    ],
)
def test_the_exception_that_ends_the_script_ends_its_job(loop: str, environment: Environment, jobs: Jobs) -> None:
    done = run(f"import asyncio\ndef work(n):\n    if n == 5: raise ValueError('bad record')\n{loop}\n", environment)
    assert (done.returncode, done.stderr.count("\nValueError: bad record\n")) == (1, 1)
    (job,) = jobs().values()
    assert (job.status, job.error.message) == (FAILED, "ValueError: bad record")
    if "[work" not in loop:
        # tqdm.asyncio counts an item before it is worked on.
        assert job.progress == (6 if "async" in loop else 5)


@pytest.mark.parametrize("away", [False, True])
def test_an_interrupt_from_the_keyboard_cancels(away: bool, environment: Environment, jobs: Jobs) -> None:
    if away:
        environment["HEADWAY_TARGET"] = "127.0.0.1:9"
    script = "for n in tqdm(range(9), desc='long'):\n    if n == 2: print('ready', flush=True); input()"
    with spawn(script, environment) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert away or jobs()["long"].status == CANCELLED


def test_inner_bars_are_jobs_if_asked_to(environment: Environment, jobs: Jobs) -> None:
    done = run(
        """
for n in tqdm(range(3), desc="outer"):
    for _ in tqdm(range(5), desc=f"inner {n}", leave=False):
        pass
    for _ in tqdm(range(5), desc=f"asked {n}", leave=False, job=True):
        pass
for _ in tqdm(range(2), desc="not asked", job=False):
    pass
""",
        environment,
    )
    assert done.returncode == 0, done.stderr
    assert {name: job.progress for name, job in jobs().items()} == {
        "outer": 3,
        "asked 0": 5,
        "asked 1": 5,
        "asked 2": 5,
    }


def test_asyncio_has_its_ways(environment: Environment, jobs: Jobs) -> None:
    done = run(
        """
import asyncio

async def numbers():
    for n in range(4):
        yield n

async def one(n):
    return n

async def main():
    seen = [n async for n in tqdm(numbers(), desc="async for", total=4)]
    seen += await tqdm.gather(*map(one, range(5)), desc="gather")
    seen += [await f for f in tqdm.as_completed([one(7), one(7)], desc="as completed")]
    print(seen)

asyncio.run(main())
""",
        environment,
    )
    assert (done.returncode, done.stdout) == (0, "[0, 1, 2, 3, 0, 1, 2, 3, 4, 7, 7]\n"), done.stderr
    assert {name: (job.status, job.progress, job.size) for name, job in jobs().items()} == {
        "async for": (COMPLETED, 4, 4),
        "gather": (COMPLETED, 5, 5),
        "as completed": (COMPLETED, 2, 2),
    }


def test_a_forked_child_does_not_end_its_parents_job(environment: Environment, jobs: Jobs) -> None:
    done = run(
        """
import os, sys
for n in tqdm(range(4), desc="parent"):
    pid = os.fork()
    if pid == 0:
        for _ in tqdm(range(50), desc="child"):
            pass
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
""",
        environment,
    )
    assert done.returncode == 0, done.stderr
    (job,) = jobs().values()
    assert (job.name, job.status, job.progress) == ("parent", COMPLETED, 4)


def test_without_a_session_the_bar_works(environment: Environment) -> None:
    del environment["HEADWAY_SESSION"]
    script = "for n in tqdm(range(3)):\n    pass\nfor n in tqdm(range(7)):\n    pass\nprint(n)"
    done = run(script, environment)
    assert (done.returncode, done.stdout) == (0, "6\n")
    assert done.stderr.count("headway: not tracked: No session") == 1
    assert "3/3" in done.stderr and "7/7" in done.stderr


def test_under_headway_run_it_is_a_bar_that_is_read(environment: Environment, jobs: Jobs) -> None:
    done = run("for _ in tqdm(range(60)):\n    pass", environment, *HEADWAY, "run", "--name", "whole", "--")
    assert done.returncode == 0
    (job,) = jobs().values()
    assert (job.name, job.status, job.progress, job.size) == ("whole", COMPLETED, 60, 60)


def test_a_server_that_is_away_costs_a_second_and_is_told_later(
    own_server: ServerProcess, environment: Environment, session: str
) -> None:
    own_server.kill()
    environment["HEADWAY_TARGET"] = own_server.address
    script = "import time\nfor _ in tqdm(range(60), desc='early'):\n    time.sleep(0.01)\nprint('done')"
    begun = time.monotonic()
    done = run(script, environment)
    assert time.monotonic() - begun < 6
    assert (done.returncode, done.stdout) == (0, "done\n")
    # A notice stands above the bar, and the bar remains whole.
    assert "does not answer" in done.stderr
    assert all("headway" not in line for line in done.stderr.split("\n") if "60/60" in line)
    own_server.start()
    subprocess.run([*HEADWAY, "flush"], env=environment, check=True, capture_output=True, timeout=30)
    listed = subprocess.run(
        [*HEADWAY, "list", "--json"], env=environment, check=True, capture_output=True, text=True, timeout=30
    )
    (job,) = json.loads(listed.stdout)["jobs"]
    assert (job["name"], job["status"], job["progress"]) == ("early", "JOB_STATUS_COMPLETED", "60")


def test_a_server_that_hangs_holds_nobody_up(own_server: ServerProcess, environment: Environment) -> None:
    environment["HEADWAY_TARGET"] = own_server.address
    own_server.signal(signal.SIGSTOP)
    try:
        script = """
import time
begun = time.monotonic()
for n in range(20):
    for _ in tqdm(range(60), desc=str(n)):
        pass
print(time.monotonic() - begun < 1)
"""
        begun = time.monotonic()
        done = run(script, environment)
        assert time.monotonic() - begun < 6
        assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    finally:
        own_server.signal(signal.SIGCONT)


def test_the_bar_is_drawn_as_tqdm_draws_it(
    server: ServerProcess, session: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_TARGET", server.address)
    monkeypatch.setenv("HEADWAY_SESSION", session)
    monkeypatch.delenv("HEADWAY_JOB", raising=False)
    from headway.tqdm import tqdm

    def drawn(kind: "type[plain_tqdm[int]]") -> str:
        file = io.StringIO()
        style = "{desc}|{bar:10}|{n_fmt}/{total_fmt}{postfix}"
        with kind(range(5), desc="bar", file=file, mininterval=0, miniters=1, bar_format=style, ncols=60) as bar:
            for n in bar:
                bar.set_postfix(n=n)
                if n == 2:
                    kind.write("a line", file=file)
        return file.getvalue()

    assert drawn(tqdm) == drawn(plain_tqdm)
    until(lambda: "bar" in jobs() and jobs()["bar"].status == COMPLETED)
