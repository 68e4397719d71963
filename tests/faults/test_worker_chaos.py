"""The tracker never harms the work: whatever happens to the server, and however the worker ends.

Each cell of the table is a real worker over a few thousand records, with counters, record errors, checkpoints, a part
and results. Its exit status, output, exception and time are its own; and its job is right at once, or right after
`headway flush`. The workers of one row share its server; rows are played beside each other.

What is garbled on the way are frames, settings and methods, so that calls break, get lost or go astray. What gRPC
carries inside a message is protected by TLS alone: over plain text a number that a bad cable turned into another
number arrives as that number, and nobody can tell.
"""

import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest

from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.chaos import ENDINGS, RECORDS, Fault, Scene, play
from tests.support.chaos_checker import LATE, Own, differences, expected, left_complaints, own_complaints
from tests.support.chaos_worker import Plan, call_statistics, checkpoint, errors
from tests.support.proxy import Garbler, Noise
from tests.support.refusals import from_error
from tests.support.seeds import seeded
from tests.support.server import ServerProcess
from tests.support.waiting import until

Rows: TypeAlias = dict[str, Future[dict[str, list[str]]]]
"""For each fault, what is wrong at each ending."""

STOPPED = 30.0
"""Seconds; longer than a client waits for an answer, and than a worker waits at its end."""

ROWS_AT_ONCE = 3


def absent(scene: Scene) -> None:
    scene.gone.wait()
    scene.server.start()


def comes_late(scene: Scene) -> None:
    scene.begun.wait()
    scene.gone.wait(1.0)
    scene.server.start()


def killed(scene: Scene) -> None:
    scene.begun.wait()
    scene.gone.wait(1.5)
    scene.server.kill()
    scene.gone.wait(1.0)
    scene.server.start()


def stopped(scene: Scene) -> None:
    scene.begun.wait()
    scene.gone.wait(1.5)
    scene.server.signal(signal.SIGSTOP)
    time.sleep(STOPPED)
    scene.server.signal(signal.SIGCONT)


def restarted(scene: Scene) -> None:
    scene.begun.wait()
    while not scene.gone.wait(2.0):
        scene.server.restart()


def full(scene: Scene) -> None:
    scene.begun.wait()
    scene.gone.wait(1.0)
    filler = scene.disk / "filler"
    # A reader keeps SQLite from beginning its log anew, where there is room left.
    with closing(sqlite3.connect(scene.disk / "headway.db")) as reader, filler.open("wb", buffering=0) as file:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM job").fetchall()
        with suppress(OSError):
            while file.write(bytes(4096)):
                pass
        until(lambda: refusal(scene.server) == "STORAGE_FULL")
        scene.gone.wait(2.0)
    filler.unlink()


def refusal(server: ServerProcess) -> str:
    """Why the server takes no job more; "" if it does."""
    with grpc.insecure_channel(server.address) as channel:
        try:
            JobServiceStub(channel).CreateJob(pb.CreateJobRequest(session_id="other"), timeout=5)
        except grpc.RpcError as error:
            return from_error(error).reason
    return ""


def cut(scene: Scene) -> None:
    while not scene.gone.wait(scene.chance.uniform(0.05, 0.5)):
        scene.proxy.cut()


def delayed(scene: Scene) -> None:
    scene.proxy.delay = 0.4
    scene.gone.wait()
    scene.proxy.delay = 0.0


def garbled(scene: Scene) -> None:
    chance, damage = scene.chance, Counter[str]()
    scene.proxy.filters = lambda asking: Garbler(chance, asking, damage) if chance.random() < 0.6 else None
    scene.begun.wait()
    scene.gone.wait(3.0)
    scene.proxy.filters = None
    scene.gone.wait()
    assert damage, "nothing was garbled"


def noisy(scene: Scene) -> None:
    scene.begun.wait()
    scene.proxy.filters = lambda asking: Noise(scene.chance, 0.001)
    scene.proxy.cut()
    scene.gone.wait()
    scene.proxy.filters = None


FAULTS = {
    # The longest comes first, the others are played beside it.
    "stopped": Fault(stopped, exit_timeout=10.0, records=12_000),
    "absent": Fault(absent, there=False, reachable=False),
    "comes-late": Fault(comes_late, there=False),
    "killed": Fault(killed),
    "full": Fault(full, small_disk=True),
    "restarted": Fault(restarted),
    "cut": Fault(cut, proxied=True),
    "delayed": Fault(delayed, proxied=True),
    "garbled": Fault(garbled, proxied=True, answer_timeout=1.0),
}
CELLS = [(fault, ending) for fault in FAULTS for ending in ENDINGS]


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rows]:
    """Each row that has a test in this run, as it is being played."""
    wanted: dict[str, list[str]] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.originalname == test_a_worker_and_its_job.__name__:
            fault, ending = item.callspec.params["fault"], item.callspec.params["ending"]
            wanted.setdefault(str(fault), []).append(str(ending))
    chance = seeded("chaos")
    with ThreadPoolExecutor(ROWS_AT_ONCE) as pool:
        yield {
            fault: pool.submit(
                play, FAULTS[fault], endings, tmp_path_factory.mktemp(fault), random.Random(chance.random())
            )
            for fault, endings in wanted.items()
        }


@pytest.mark.parametrize(("fault", "ending"), CELLS, ids=[f"{fault}-{ending}" for fault, ending in CELLS])
def test_a_worker_and_its_job(rows: Rows, fault: str, ending: str) -> None:
    complaints = rows[fault].result()[ending]
    assert not complaints, "\n".join(complaints)


def test_noise_inside_of_messages_harms_no_worker(tmp_path: Path) -> None:
    """What it makes of the job is not promised, but the worker's own result is, and that the spool can be read."""
    noise = Fault(noisy, proxied=True, exact=False, answer_timeout=1.0)
    for ending, complaints in play(noise, ["finishes", "raises"], tmp_path, seeded("noise")).items():
        assert not complaints, f"{ending}: " + "\n".join(complaints)


CALM = Fault(lambda scene: None, records=300)


def test_the_checker_sees_a_worker_that_counts_twice(tmp_path: Path) -> None:
    ((_, complaints),) = play(CALM, ["finishes"], tmp_path, random.Random(), bug="counts twice").items()
    assert [complaint.partition(" is ")[0] for complaint in complaints] == ["counters"]


def test_the_checker_sees_an_end_that_is_lost(tmp_path: Path) -> None:
    ((_, complaints),) = play(CALM, ["finishes"], tmp_path, random.Random(), bug="forgets to finish").items()
    assert "status is 'RUNNING', not 'COMPLETED'" in complaints


def test_the_checker_sees_a_worker_that_waits_for_its_tracker(tmp_path: Path) -> None:
    away = replace(FAULTS["absent"], records=300, exit_timeout=2 * LATE)
    ((_, complaints),) = play(away, ["finishes"], tmp_path, random.Random(), bug="waits for its tracker").items()
    assert [complaint[: len("behind: it waited 3.")] for complaint in complaints] == ["behind: it waited 3."]


def test_the_checker_sees_a_false_fact() -> None:
    right = expected("finishes", RECORDS, RECORDS)
    assert differences(right, right) == []
    for name in right:
        assert differences(right, {**right, name: "false"})
        assert differences(right, {key: value for key, value in right.items() if key != name and value is not None})
    assert differences(right, {})


TRACEBACK = 'Traceback (most recent call last):\n  File "worker.py", line 1\nValueError: record 9 is beyond repair\n'
PLAN = Plan(job_id="", diary="", records=10, pace=0.0, raise_at=9, die_at=9)
OWN = {
    "finishes": Own(0, "10 records imported\n", "headway: a message\n", {"done": 10, "ended": 5.0}, 5.1),
    "raises": Own(1, "", f"headway: a message\n{TRACEBACK}", {"done": 9, "ended": 5.0}, 5.1),
    "killed": Own(-9, "", "", {"died": 9}, 5.1),
    "cancelled": Own(3, "cancelled: wrong file\n", "", {"done": 3, "ended": 5.0}, 5.1),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_checker_sees_a_result_that_is_not_the_workers_own(ending: str) -> None:
    own = OWN[ending]
    assert own_complaints(ending, own, PLAN) == []
    false = {
        "a status": replace(own, status=own.status + 1),
        "an output": replace(own, stdout=own.stdout + "headway: a message\n"),
        "a fault of the tracker's": replace(
            own, stderr=TRACEBACK.replace("worker.py", "/headway/engine.py") + own.stderr
        ),
        "a slow beginning": replace(own, diary={**own.diary, "began": 1.0 + 2 * LATE}),
        "slow work": replace(own, diary={**own.diary, "behind": 2 * LATE}),
    }
    if ending != "killed":
        false["an exit that hangs"] = replace(own, ended=5.0 + 2 * PLAN.exit_timeout + 2 * LATE)
    if ending == "finishes":
        false["records that were left out"] = replace(
            own, stdout="9 records imported\n", diary={**own.diary, "done": 9}
        )
    for what, wrong in false.items():
        assert own_complaints(ending, wrong, PLAN), f"the checker overlooks {what}"


def test_the_checker_sees_what_a_killed_worker_should_have_left() -> None:
    diary = {"acknowledged": 250.0, "died": 400}
    left = {
        "parts": {"": 260, "index": 26},
        "counters": dict(call_statistics(270)),
        "error_count": errors(265),
        "variables": dict(checkpoint(200)),
    }
    assert left_complaints(diary, left) == []
    false = {
        "progress that was lost": {**left, "parts": {"": 240}},
        "progress that never was": {**left, "parts": {"": 401}},
        "counters that were lost": {**left, "counters": call_statistics(249)},
        "counters that never were": {**left, "counters": call_statistics(401)},
        "errors that were lost": {**left, "error_count": errors(240)},
        "errors that never were": {**left, "error_count": errors(410)},
        "a checkpoint that was lost": {**left, "variables": checkpoint(100)},
        "a checkpoint that is torn": {**left, "variables": {**checkpoint(200), "added": 1}},
        "a checkpoint without its progress": {**left, "variables": checkpoint(300)},
    }
    for what, wrong in false.items():
        assert left_complaints(diary, wrong), f"the checker overlooks {what}"
