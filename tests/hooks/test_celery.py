"""Celery workers, of processes and of one, whose tasks are jobs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery
from celery.result import AsyncResult

import headway
from headway.integrations.tasks import job_id
from headway.v1 import job_pb2
from tests.cli.run import HEADWAY
from tests.hooks.conftest import end_process, watched
from tests.support.redis import RedisServer
from tests.support.server import ServerProcess
from tests.support.waiting import until

RUNNING, COMPLETED, FAILED, CANCELLED = (
    job_pb2.JOB_STATUS_RUNNING,
    job_pb2.JOB_STATUS_COMPLETED,
    job_pb2.JOB_STATUS_FAILED,
    job_pb2.JOB_STATUS_CANCELLED,
)
ENDED = (COMPLETED, FAILED, CANCELLED)


class Worker:
    """A worker with a queue of its own, and the client's side of that."""

    def __init__(self, redis: RedisServer, folder: Path, environment: dict[str, str]) -> None:
        self.queue = f"queue-{uuid4().hex[:8]}"
        self.app = Celery("tests", broker=redis.url, backend=redis.url)
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HEADWAY_")},
            "BROKER": redis.url,
            "PYTHONPATH": str(Path(__file__).parent),
            **environment,
        }

    @contextmanager
    def running(self, pool: str, end_with: int = signal.SIGTERM) -> Iterator["Worker"]:
        command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--pool", pool, "-c", "2"]
        options = ["-Q", self.queue, "-n", self.queue, "-l", "INFO"]
        quick = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with (self.folder / "worker.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, *options, *quick], env=self.environment, cwd=self.folder, stdout=log, stderr=log
            )
        try:
            until(lambda: " ready." in self.log, 30)
            yield self
        finally:
            end_process(process, end_with)

    @property
    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    def send(
        self,
        task: str,
        *args: object,
        task_id: str | None = None,
        expires: float | None = None,
        time_limit: int | None = None,
    ) -> "AsyncResult[object]":
        name = f"celery_app.{task}"
        return self.app.send_task(name, args, queue=self.queue, task_id=task_id, expires=expires, time_limit=time_limit)


SESSION = f"celery-{uuid4().hex}"


@pytest.fixture(scope="module")
def jobs(server: ServerProcess) -> Iterator[headway.Client]:
    """A connection to the session of this module's workers."""
    with headway.connect(server.address, session=SESSION) as connection:
        yield connection


@pytest.fixture(scope="module", params=["prefork", "solo"])
def worker(
    request: pytest.FixtureRequest,
    redis: RedisServer,
    server: ServerProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("celery")
    environment = {
        "HEADWAY_TARGET": server.address,
        "HEADWAY_SESSION": SESSION,
        "HEADWAY_SPOOL": str(folder / "spool"),
    }
    with Worker(redis, folder, environment).running(request.param) as running:
        yield running


def state(jobs: headway.Client, result: "AsyncResult[object]") -> job_pb2.Job | None:
    try:
        return jobs.get(None, job_id(result.id))
    except headway.NotFoundError:
        return None


def end(jobs: headway.Client, result: "AsyncResult[object]") -> job_pb2.Job:
    """The task's job once it has ended."""
    until(lambda: (found := state(jobs, result)) is not None and found.status in ENDED, 20)
    found = state(jobs, result)
    assert found is not None
    return found


def test_a_task_that_returns_is_completed(worker: Worker, jobs: headway.Client) -> None:
    result = worker.send("stage", 50)
    assert result.get(timeout=20) == {"added": 50}
    job = end(jobs, result)
    assert job.id == result.id.replace("-", "")
    assert (job.name, job.status, job.attempt) == ("celery_app.stage", COMPLETED, 1)
    assert (job.progress, job.size, job.counters["added"]) == (50, 50, 50)
    assert jobs.results(None, job.id) == {"added": 50}
    assert job.labels["queue"] == worker.queue
    assert job.labels["worker"] == f"celery@{worker.queue}"
    assert job.labels["task"] == result.id


def test_progress_is_seen_while_a_task_runs(worker: Worker, jobs: headway.Client, tmp_path: Path) -> None:
    result = worker.send("wait_for", str(tmp_path / "gate"))
    until(lambda: (job := state(jobs, result)) is not None and job.progress == 3, 20)
    job = state(jobs, result)
    assert job is not None and (job.status, job.size) == (RUNNING, 10)
    (tmp_path / "gate").touch()
    assert end(jobs, result).progress == 10


def test_a_task_that_raises_has_failed(worker: Worker, jobs: headway.Client) -> None:
    job = end(jobs, worker.send("fail"))
    assert (job.status, job.error.message, job.progress) == (FAILED, "ValueError: bad record", 2)


def test_a_retry_takes_the_job_over(worker: Worker, jobs: headway.Client) -> None:
    result = worker.send("retry")
    assert result.get(timeout=20) == "at last"
    job = end(jobs, result)
    assert (job.status, job.attempt, job.progress) == (COMPLETED, 3, 12)
    assert jobs.results(None, job.id) == "at last"
    assert job.message == "Retry in 0.1s: OSError('no disk')"
    assert "headway: " not in worker.log


@pytest.mark.parametrize("task", ["until_cancelled", "until_cancelled_and_retried"])
def test_who_cancels_the_job_ends_the_task(task: str, worker: Worker, jobs: headway.Client) -> None:
    result = worker.send(task)
    until(lambda: state(jobs, result) is not None, 20)
    with watched(jobs, job_id(result.id)):
        until(lambda: (job := state(jobs, result)) is not None and job.progress == 1, 20)
        jobs.cancel(None, job_id(result.id), reason="wrong file")
    job = end(jobs, result)
    assert (job.status, job.error.message) == (CANCELLED, "JobCancelled: wrong file")
    until(lambda: result.state == "FAILURE")
    assert "JobCancelled" in repr(result.result)
    assert len(list(jobs.list(labels={"task": result.id}))) == 1


def test_an_id_of_ones_own_is_as_good(worker: Worker, jobs: headway.Client) -> None:
    result = worker.send("stage", 3, task_id=f"nightly {uuid4().hex}")
    assert end(jobs, result).labels["task"] == result.id


@pytest.mark.parametrize("task", ["no_json", "large"])
def test_results_that_cannot_be_kept_are_left_out(task: str, worker: Worker, jobs: headway.Client) -> None:
    job = end(jobs, worker.send(task))
    assert job.status == COMPLETED
    assert jobs.results(None, job.id) is None


def test_a_task_that_ran_once_more_has_a_job_for_each_run(worker: Worker, jobs: headway.Client) -> None:
    first = worker.send("stage", 5)
    end(jobs, first)
    second = worker.send("stage", 6, task_id=first.id)
    until(lambda: len(list(jobs.list(labels={"task": first.id}, statuses=[headway.Status.COMPLETED]))) == 2, 20)
    assert {job.progress for job in jobs.list(labels={"task": second.id})} == {5, 6}


def test_a_task_that_replaces_another_goes_on_with_its_job(worker: Worker, jobs: headway.Client) -> None:
    result = worker.send("replaced", 40)
    assert result.get(timeout=20) == {"added": 40}
    job = end(jobs, result)
    assert (job.name, job.status, job.progress, job.size) == ("celery_app.stage", COMPLETED, 40, 40)
    assert jobs.results(None, job.id) == {"added": 40}
    assert [job.id for job in jobs.list(labels={"task": result.id})] == [job.id]
    assert "headway: " not in worker.log


def test_a_group_that_replaces_a_task_ends_its_job(worker: Worker, jobs: headway.Client) -> None:
    result = worker.send("replaced_by_group", [2, 3])
    job = end(jobs, result)
    assert (job.name, job.status) == ("celery_app.replaced_by_group", COMPLETED)
    assert jobs.results(None, job.id) == [{"added": 2}, {"added": 3}]


def test_an_id_can_be_used_again_by_another_task(worker: Worker, jobs: headway.Client) -> None:
    first = worker.send("stage", 5)
    end(jobs, first)
    worker.send("fail", task_id=first.id)
    until(lambda: len(list(jobs.list(labels={"task": first.id}, statuses=[headway.Status.FAILED]))) == 1, 20)


def test_what_was_cancelled_can_be_sent_again(worker: Worker, jobs: headway.Client) -> None:
    first = worker.send("until_cancelled")
    until(lambda: state(jobs, first) is not None, 20)
    with watched(jobs, job_id(first.id)):
        jobs.cancel(None, job_id(first.id))
    worker.send("stage", 7, task_id=first.id)
    until(lambda: len(list(jobs.list(labels={"task": first.id}, statuses=[headway.Status.COMPLETED]))) == 1, 20)


def test_threads_of_a_task_count_for_its_job(worker: Worker, jobs: headway.Client) -> None:
    job = end(jobs, worker.send("from_threads", 30))
    assert (job.status, job.progress) == (COMPLETED, 30)


def test_a_revoked_task_is_cancelled(worker: Worker, jobs: headway.Client) -> None:
    task = str(uuid4())
    worker.app.control.revoke(task, reply=True, limit=1, timeout=20, destination=[f"celery@{worker.queue}"])
    job = end(jobs, worker.send("stage", 5, task_id=task))
    assert (job.status, job.error.message) == (CANCELLED, "revoked")
    job = end(jobs, worker.send("stage", 5, expires=-1))
    assert (job.status, job.error.message) == (CANCELLED, "expired")


only_prefork = pytest.mark.parametrize("worker", ["prefork"], indirect=True)
"""What would take a worker of one process with it."""


@only_prefork
def test_a_task_that_is_terminated_is_cancelled(worker: Worker, jobs: headway.Client) -> None:
    result = worker.send("wait_for", "/nowhere")
    until(lambda: (job := state(jobs, result)) is not None and job.progress == 3, 20)
    worker.app.control.revoke(result.id, terminate=True)
    job = end(jobs, result)
    assert (job.status, job.error.message) == (CANCELLED, "terminated by SIGTERM")
    # The worker goes on, with a process in place of that one.
    assert end(jobs, worker.send("stage", 5)).status == COMPLETED


@only_prefork
def test_a_task_whose_process_dies_has_failed(worker: Worker, jobs: headway.Client) -> None:
    job = end(jobs, worker.send("killed"))
    assert job.status == FAILED
    assert job.error.message.startswith("WorkerLostError: ")


@only_prefork
def test_a_task_that_exceeds_its_time_limit_has_failed(worker: Worker, jobs: headway.Client) -> None:
    job = end(jobs, worker.send("wait_for", "/nowhere", time_limit=1))
    assert (job.status, job.error.message, job.progress) == (FAILED, "TimeLimitExceeded: TimeLimitExceeded(1,)", 3)


@only_prefork
def test_a_run_with_an_id_that_was_used_before_is_ended_too(worker: Worker, jobs: headway.Client) -> None:
    first = worker.send("stage", 5)
    end(jobs, first)
    worker.send("wait_for", "/nowhere", task_id=first.id, time_limit=1)
    until(lambda: len(list(jobs.list(labels={"task": first.id}, statuses=[headway.Status.FAILED]))) == 1, 20)


@only_prefork
def test_another_delivery_takes_the_job_over(worker: Worker, jobs: headway.Client, tmp_path: Path) -> None:
    result = worker.send("killed_once", str(tmp_path / "mark"))
    assert result.get(timeout=20) == "done"
    job = end(jobs, result)
    assert (job.status, job.attempt, job.progress) == (COMPLETED, 2, 1)


def test_a_worker_that_shuts_down_cold_cancels_what_it_stops(
    redis: RedisServer, server: ServerProcess, session: str, tmp_path: Path
) -> None:
    environment = {"HEADWAY_TARGET": server.address, "HEADWAY_SESSION": session}
    with headway.connect(server.address, session=session) as jobs:
        with Worker(redis, tmp_path, environment).running("prefork", signal.SIGQUIT) as worker:
            sent = [worker.send("wait_for", "/nowhere"), worker.send("wait_for_late", "/nowhere")]
            until(lambda: [job.progress for job in jobs.list()] == [3, 3], 20)
        job = end(jobs, sent[0])
        assert (job.status, job.error.message, job.progress) == (CANCELLED, "the worker was shut down", 3)
        # It is delivered again, to another worker.
        late = state(jobs, sent[1])
        assert late is not None and late.status == RUNNING


def test_a_task_that_exits_where_no_process_ends_has_failed(
    redis: RedisServer, server: ServerProcess, session: str, tmp_path: Path
) -> None:
    environment = {"HEADWAY_TARGET": server.address, "HEADWAY_SESSION": session}
    running = Worker(redis, tmp_path, environment).running("threads")
    with headway.connect(server.address, session=session) as jobs, running as worker:
        job = end(jobs, worker.send("leave", 3))
        assert (job.status, job.error.message, job.progress) == (FAILED, "SystemExit: 3", 2)


def test_tasks_are_done_while_the_server_is_unreachable(
    redis: RedisServer, own_server: ServerProcess, session: str, tmp_path: Path
) -> None:
    own_server.kill()
    environment = {
        "HEADWAY_TARGET": own_server.address,
        "HEADWAY_SESSION": session,
        "HEADWAY_SPOOL": str(tmp_path / "spool"),
    }
    with Worker(redis, tmp_path, environment).running("prefork") as worker:
        begun = time.monotonic()
        early = worker.send("stage", 50)
        assert early.get(timeout=20) == {"added": 50}
        failed = worker.send("fail")
        until(lambda: failed.state == "FAILURE")
        assert time.monotonic() - begun < 5
        # It hangs, at first, and then it is back.
        own_server.start()
        own_server.signal(signal.SIGSTOP)
        assert worker.send("stage", 5).get(timeout=20) == {"added": 5}
        own_server.signal(signal.SIGCONT)
        with headway.connect(own_server.address, session=session) as jobs:
            assert (end(jobs, early).status, end(jobs, early).progress) == (COMPLETED, 50)
            assert (end(jobs, failed).status, end(jobs, failed).progress) == (FAILED, 2)
        own_server.kill()
        late = worker.send("stage", 60)
        assert late.get(timeout=20) == {"added": 60}
    own_server.start()
    subprocess.run([*HEADWAY, "flush"], env=worker.environment, check=True, capture_output=True, timeout=30)
    with headway.connect(own_server.address, session=session) as jobs:
        assert (end(jobs, late).status, end(jobs, late).progress) == (COMPLETED, 60)


def test_without_a_session_tasks_run(redis: RedisServer, server: ServerProcess, tmp_path: Path) -> None:
    with Worker(redis, tmp_path, {"HEADWAY_TARGET": server.address}).running("prefork") as worker:
        assert worker.send("stage", 5).get(timeout=20) == {"added": 5}
        assert worker.send("retry").get(timeout=20) == "at last"
        assert worker.log.count("not tracked: No session") == 1


def test_only_the_tasks_that_are_named_are_tracked(
    redis: RedisServer, server: ServerProcess, session: str, tmp_path: Path
) -> None:
    environment = {"HEADWAY_TARGET": server.address, "HEADWAY_SESSION": session, "TASKS": "celery_app.fail"}
    with Worker(redis, tmp_path, environment).running("solo") as worker:
        assert worker.send("stage", 5).get(timeout=20) == {"added": 5}
        result = worker.send("fail")
        with headway.connect(server.address, session=session) as jobs:
            assert end(jobs, result).status == FAILED
            assert [job.name for job in jobs.list()] == ["celery_app.fail"]


def test_a_call_of_ones_own_is_not_tracked(redis: RedisServer, session: str, server: ServerProcess) -> None:
    script = """
from celery_app import fail, retry, stage
assert stage(5) == stage.apply((5,)).get() == {"added": 5}
assert retry.apply().get() == "at last"
assert fail.apply().state == "FAILURE"
"""
    environment = {
        **os.environ,
        "HEADWAY_TARGET": server.address,
        "HEADWAY_SESSION": session,
        "BROKER": redis.url,
        "PYTHONPATH": str(Path(__file__).parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    with headway.connect(server.address, session=session) as jobs:
        assert not list(jobs.list())


@pytest.mark.parametrize("worker", ["gevent", "eventlet"], indirect=True)
def test_tasks_in_greenlets_are_tracked(worker: Worker, jobs: headway.Client) -> None:
    results = [worker.send("stage", 50) for _ in range(5)]
    broken = worker.send("fail")
    for result in results:
        job = end(jobs, result)
        assert (job.status, job.progress, job.counters["added"]) == (COMPLETED, 50, 50)
        assert result.get(timeout=20) == {"added": 50}
    job = end(jobs, broken)
    assert (job.status, job.progress, job.error.message) == (FAILED, 2, "ValueError: bad record")
