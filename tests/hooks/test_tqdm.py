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
import asyncio

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
""",
        environment,
    )
    assert done.returncode == 0, done.stderr
    seen = {name: (job.status, job.error.message or job.message) for name, job in jobs().items()}
    assert seen == {
        "break": (COMPLETED, "left at 3 of 9"),
        "return": (COMPLETED, "left at 0 of 9"),
        # The script goes on after it, so that it is no failure of the script.
        "raise": (COMPLETED, "left at 3 of 9"),
        "with": (FAILED, "OSError: no disk 0"),
        "finally": (FAILED, "OSError: no disk 1"),
        "source": (FAILED, "LookupError: dry"),
        "interrupted": (CANCELLED, "KeyboardInterrupt"),
        "forgotten": (FAILED, "the bar was let go at 2 of 9"),
        "zipped": (COMPLETED, "left at 2 of 9"),
        "while handling": (COMPLETED, ""),
        "passed on": (COMPLETED, "left at 0 of 9"),
        "async break": (COMPLETED, "left at 4 of 9"),
        "async raise": (COMPLETED, "left at 1 of 9"),
    }
    assert jobs()["break"].progress == 3


def test_a_loop_that_was_left_ends_while_the_script_goes_on(environment: Environment, jobs: Jobs) -> None:
    script = """
import headway.integrations.tqdm
headway.integrations.tqdm.DECISION_DELAY = 0
for n in tqdm(range(9), desc="left"):
    if n == 3:
        break
input()
"""
    with spawn(script, environment) as process:
        until(lambda: "left" in jobs() and jobs()["left"].status == COMPLETED, 20)
        process.communicate("\n", timeout=20)
    assert (jobs()["left"].progress, jobs()["left"].message) == (3, "left at 3 of 9")


def test_what_is_handled_around_a_loop_is_not_its_end(environment: Environment, jobs: Jobs) -> None:
    """joblib takes from the iterable while it handles `queue.Empty`."""
    done = run(
        """
import asyncio, queue
loop, moved = iter(tqdm(range(20), desc="loop")), tqdm(total=5, desc="moved", job=True)
bar = tqdm(range(5), desc="async", job=True)
async def main():
    async for _ in bar:
        pass
try:
    queue.Queue().get_nowait()
except queue.Empty:
    for _ in loop:
        moved.update(moved.n < 5)
    moved.close()
    asyncio.run(main())
""",
        environment,
    )
    assert done.returncode == 0, done.stderr
    assert {name: (job.status, job.progress) for name, job in jobs().items()} == {
        "loop": (COMPLETED, 20),
        "moved": (COMPLETED, 5),
        "async": (COMPLETED, 5),
    }


@pytest.mark.parametrize(
    ("status", "returned", "end"),
    [("0", 0, (COMPLETED, "")), ("", 0, (COMPLETED, "")), ("3", 3, (FAILED, "SystemExit: 3"))],
)
def test_the_exit_status_of_the_script_ends_its_job(
    status: str, returned: int, end: object, environment: Environment, jobs: Jobs
) -> None:
    done = run(
        f"""
import sys
moved = tqdm(total=9, desc="moved", job=True)
done = tqdm(total=2, desc="done", job=True)
done.update(2)
for n in tqdm(range(10), desc="loop", job=True):
    moved.update(n == 0)
    if n == 3:
        sys.exit({status})
""",
        environment,
    )
    assert done.returncode == returned
    seen = {name: ((job.status, job.error.message), job.progress) for name, job in jobs().items()}
    assert seen == {"moved": (end, 1), "loop": (end, 3), "done": ((COMPLETED, ""), 2)}


def test_the_exit_status_of_a_process_of_a_pool_ends_its_job(environment: Environment, jobs: Jobs) -> None:
    done = run(
        """
import multiprocessing, sys

def work():
    for n in tqdm(range(10), desc="child"):
        if n == 3:
            sys.exit(3)

process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
print(process.exitcode)
""",
        environment,
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    assert (jobs()["child"].status, jobs()["child"].error.message) == (FAILED, "SystemExit: 3")


def test_a_task_that_is_cancelled_cancels(environment: Environment, jobs: Jobs) -> None:
    done = run(
        """
import asyncio

async def one(n):
    await asyncio.sleep(0 if n < 3 else 60)
    return n

async def broken():
    raise OSError("no disk")

async def gather():
    await tqdm.gather(*map(one, range(6)), desc="gather")

async def as_completed():
    for future in tqdm.as_completed([one(n) for n in range(6)], desc="as completed"):
        await future

async def body_of_async_for():
    async for _ in tqdm(range(6), desc="body of async for"):
        await one(9)

async def body_of_for():
    for _ in tqdm(range(6), desc="body of for"):
        await one(9)

async def timed_out():
    async with asyncio.timeout(0.05):
        await tqdm.gather(*map(one, range(6)), desc="timed out")

async def broken_gather():
    await tqdm.gather(one(0), broken(), desc="broken gather")

async def broken_and_handled():
    for future in tqdm.as_completed([broken(), broken()], desc="handled"):
        try:
            await future
        except OSError:
            pass

async def main():
    for attempt in (gather, as_completed, body_of_async_for, body_of_for):
        task = asyncio.create_task(attempt())
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    for attempt in (timed_out, broken_gather, broken_and_handled):
        await asyncio.wait([asyncio.create_task(attempt())])

asyncio.run(main())
""",
        environment,
    )
    assert done.returncode == 0, done.stderr
    assert {name: (job.status, job.error.message) for name, job in jobs().items()} == {
        "gather": (CANCELLED, "CancelledError"),
        "as completed": (CANCELLED, "CancelledError"),
        "body of async for": (CANCELLED, "CancelledError"),
        "body of for": (CANCELLED, "CancelledError"),
        "timed out": (CANCELLED, "CancelledError"),
        "broken gather": (FAILED, "OSError: no disk"),
        "handled": (COMPLETED, ""),
    }


def test_a_source_that_raises_under_async_for_prints_one_traceback(environment: Environment, jobs: Jobs) -> None:
    done = run(
        """
import asyncio

async def source():
    yield 1
    raise LookupError("dry")

async def main():
    async for _ in tqdm(source(), desc="source"):
        pass

asyncio.run(main())
""",
        environment,
    )
    assert (done.returncode, done.stderr.count("Traceback"), done.stderr.count("Exception ignored")) == (1, 1, 0)
    assert (jobs()["source"].status, jobs()["source"].error.message) == (FAILED, "LookupError: dry")


def test_numbers_that_no_job_can_have_do_no_harm(environment: Environment, jobs: Jobs) -> None:
    done = run(
        """
from math import inf, nan
numbers = [(3, inf), (nan, 9), (-2, -1), (2**70, 2**70), (3, nan), (2.5, 9.5), (nan, 9)]
for number, (n, total) in enumerate(numbers):
    bar = tqdm(total=9, desc=str(number), disable=0 < number < 6)
    bar.update(4)
    bar.total, bar.n = total, n
    try:
        bar.close()
    except ValueError as error:
        # tqdm itself cannot draw this one.
        assert number == 6, number
bar = tqdm(total=9, desc="text", disable=True)
bar.n, bar.total = "three", "nine"
bar.close()
""",
        environment,
    )
    assert done.returncode == 0, done.stderr
    assert {name: (job.status, job.progress, job.size) for name, job in jobs().items()} == {
        "0": (COMPLETED, 3, 0),
        "1": (COMPLETED, 0, 9),
        "2": (COMPLETED, 0, 0),
        "3": (COMPLETED, 2**63 - 1, 2**63 - 1),
        "4": (COMPLETED, 3, 0),
        "5": (COMPLETED, 2, 9),
        "6": (COMPLETED, 0, 9),
        "text": (COMPLETED, 0, 0),
    }


def test_copies_of_a_bar_are_as_those_of_tqdm(environment: Environment, jobs: Jobs) -> None:
    script = """
import copy, io, pickle, sys
from tqdm import tqdm as plain
def what(attempt):
    try:
        twin = attempt()
    except Exception as error:
        return type(error)
    twin.update(2)
    return twin.n, twin.total, getattr(twin, "desc", None), bool(twin.disable)
for options in ({"disable": True}, {"file": io.StringIO()}, {}):
    bars = tqdm(total=9, desc="bar", **options), plain(total=9, desc="bar", **options)
    for way in (lambda bar: pickle.loads(pickle.dumps(bar)), copy.deepcopy, copy.copy):
        mine, its = (what(lambda: way(bar)) for bar in bars)
        assert mine == its, (options, mine, its)
    bars[0].update(9)
    bars[0].close()
"""
    done = run(script, environment)
    assert done.returncode == 0, done.stderr
    assert len(jobs()) == 1 and jobs()["bar"].status == COMPLETED


def test_a_bar_of_ones_own_class_is_called_and_counted(environment: Environment, jobs: Jobs) -> None:
    done = run(
        """
class Twice(tqdm):
    def update(self, n=1):
        print("update", n)
        return super().update(2 * n)
class Further(Twice):
    def update(self, n=1):
        return super().update(n + 1)
for number, options in enumerate([{"disable": True}, {}]):
    for kind in (Twice, Further):
        with kind(total=8, desc=f"{kind.__name__} {number}", **options) as bar:
            bar.update(3)
""",
        environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "update 3\nupdate 4\n" * 2
    assert {name: job.progress for name, job in jobs().items()} == {
        "Twice 0": 6,
        "Further 0": 8,
        "Twice 1": 6,
        "Further 1": 8,
    }


def test_the_unit_is_found_wherever_it_is_given(environment: Environment, jobs: Jobs) -> None:
    done = run(
        """
by_position = None, None, 0.1, 10.0, None, None
for disable in (False, True):
    tqdm(range(2), f"by position {disable}", 2, True, *by_position, disable, " rows", 1000).close()
    with tqdm(total=2, desc=f"bytes {disable}", unit="B", unit_scale=True, disable=disable) as bar:
        bar.update(2)
    tqdm(total=2, desc=f"none {disable}", disable=disable).close()
""",
        environment,
    )
    assert done.returncode == 0, done.stderr
    assert {name: (job.unit, job.size) for name, job in jobs().items()} == {
        "by position False": ("rows", 2000),
        "by position True": ("rows", 2000),
        "bytes False": ("B", 2),
        "bytes True": ("B", 2),
        "none False": ("", 2),
        "none True": ("", 2),
    }


def test_bars_of_several_threads_and_tasks_are_jobs_each(environment: Environment, jobs: Jobs) -> None:
    done = run(
        """
import asyncio, threading
meeting = threading.Barrier(3)
def in_thread(number):
    for n in tqdm(range(4), desc=f"thread {number}"):
        meeting.wait()
        for _ in tqdm(range(2), desc=f"inside {number}"):
            pass
threads = [threading.Thread(target=in_thread, args=(number,)) for number in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]

async def in_task(number):
    async for n in tqdm(range(4), desc=f"task {number}"):
        await asyncio.sleep(0)
async def main():
    await asyncio.gather(*map(in_task, range(3)))
asyncio.run(main())
""",
        environment,
    )
    assert done.returncode == 0, done.stderr
    assert {name: (job.status, job.progress) for name, job in jobs().items()} == {
        f"{kind} {number}": (COMPLETED, 4) for kind in ("thread", "task") for number in range(3)
    }


def test_a_bar_that_was_done_has_no_part_in_what_comes_after(environment: Environment, jobs: Jobs) -> None:
    done = run("bar = tqdm(total=5, desc='done')\nbar.update(5)\nraise ValueError('later')", environment)
    assert done.returncode == 1
    assert (jobs()["done"].status, jobs()["done"].progress) == (COMPLETED, 5)


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
    bar = tqdm(numbers(), desc="anext", total=4)
    assert [await anext(bar) for _ in range(4)] == await tqdm.gather(*map(one, range(4)), job=False)
    bar.close()
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
        "anext": (COMPLETED, 4, 4),
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


def test_an_unreachable_server_costs_a_second_and_is_told_later(
    own_server: ServerProcess, environment: Environment, session: str
) -> None:
    own_server.kill()
    environment["HEADWAY_TARGET"] = own_server.address
    script = "import time\nfor _ in tqdm(range(60), desc='early'):\n    time.sleep(0.01)\nprint('done')"
    begun = time.monotonic()
    done = run(script, environment)
    assert time.monotonic() - begun < 6
    assert (done.returncode, done.stdout) == (0, "done\n")
    # A warning is printed above the bar, and the bar stays intact.
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
