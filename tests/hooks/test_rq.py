"""RQ workers, with a process for each job and with one for all, whose work is tracked."""

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
from redis import Redis
from rq import Queue, Retry
from rq.command import send_stop_job_command
from rq.job import Job, JobStatus

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
SESSION = f"rq-{uuid4().hex}"


class Worker:
    """A worker with a queue of its own, and the client's side of that."""

    def __init__(self, redis: RedisServer, folder: Path, environment: dict[str, str]) -> None:
        self._redis = redis
        self.connection = Redis(port=redis.port)
        self.queue = Queue(f"queue-{uuid4().hex[:8]}", connection=self.connection)
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HEADWAY_")},
            "PYTHONPATH": str(Path(__file__).parent),
            **environment,
        }

    @contextmanager
    def running(self, kind: str) -> Iterator["Worker"]:
        command = [sys.executable, "-m", "rq.cli", "worker", "--worker-class", kind, "--url", self._redis.url]
        options = ["--name", f"worker of {self.queue.name}", "--with-scheduler", self.queue.name]
        with (self.folder / "worker.log").open("wb") as log:
            process = self._process = subprocess.Popen(
                [*command, *options], env=self.environment, cwd=self.folder, stdout=log, stderr=log
            )
        try:
            until(lambda: "Listening on" in self.log, 30)
            yield self
        finally:
            end_process(process)
            self.connection.close()

    def interrupt(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    @property
    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    def send(self, function: str, *args: object, id: str | None = None, retry: Retry | None = None) -> Job:
        return self.queue.enqueue_call(f"rq_jobs.{function}", args, job_id=id, retry=retry)

    def status(self, job: Job) -> JobStatus:
        return Job.fetch(job.id, connection=self.connection).get_status()


@pytest.fixture(scope="module")
def jobs(server: ServerProcess) -> Iterator[headway.Client]:
    """A connection to the session of this module's workers."""
    with headway.connect(server.address, session=SESSION) as connection:
        yield connection


@pytest.fixture(scope="module", params=["headway.rq.Worker", "headway.rq.SimpleWorker"])
def worker(
    request: pytest.FixtureRequest,
    redis: RedisServer,
    server: ServerProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("rq")
    environment = {
        "HEADWAY_TARGET": server.address,
        "HEADWAY_SESSION": SESSION,
        "HEADWAY_SPOOL": str(folder / "spool"),
    }
    with Worker(redis, folder, environment).running(request.param) as running:
        yield running


only_forking = pytest.mark.parametrize("worker", ["headway.rq.Worker"], indirect=True)
"""What would take a worker of one process with it."""


def state(jobs: headway.Client, sent: Job) -> job_pb2.Job | None:
    try:
        return jobs.get(None, job_id(sent.id))
    except headway.NotFoundError:
        return None


def end(jobs: headway.Client, sent: Job) -> job_pb2.Job:
    """Headway's job of this one once it has ended."""
    until(lambda: (found := state(jobs, sent)) is not None and found.status in ENDED, 20)
    found = state(jobs, sent)
    assert found is not None
    return found


def test_what_returns_is_completed(worker: Worker, jobs: headway.Client) -> None:
    sent = worker.send("stage", 50)
    job = end(jobs, sent)
    assert job.id == sent.id.replace("-", "")
    assert (job.name, job.status, job.attempt) == ("rq_jobs.stage", COMPLETED, 1)
    assert (job.progress, job.size, job.counters["added"]) == (50, 50, 50)
    assert jobs.results(None, job.id) == {"added": 50}
    assert dict(job.labels) == {
        "queue": worker.queue.name,
        "worker": f"worker of {worker.queue.name}",
        "task": sent.id,
    }
    assert worker.status(sent) == JobStatus.FINISHED


def test_progress_is_seen_while_it_runs(worker: Worker, jobs: headway.Client, tmp_path: Path) -> None:
    sent = worker.send("wait_for", str(tmp_path / "gate"))
    until(lambda: (job := state(jobs, sent)) is not None and job.progress == 3, 20)
    job = state(jobs, sent)
    assert job is not None and (job.status, job.size) == (RUNNING, 10)
    (tmp_path / "gate").touch()
    assert end(jobs, sent).progress == 10


def test_what_raises_has_failed(worker: Worker, jobs: headway.Client) -> None:
    job = end(jobs, worker.send("fail"))
    assert (job.status, job.error.message, job.progress) == (FAILED, "ValueError: bad record", 2)


@pytest.mark.parametrize(
    ("function", "retry", "message"),
    [("retry", Retry(max=3), "Retry after OSError('no disk')"), ("ask_for_retry", None, "Retry")],
)
def test_a_retry_takes_the_job_over(
    function: str, retry: Retry | None, message: str, worker: Worker, jobs: headway.Client
) -> None:
    job = end(jobs, worker.send(function, retry=retry))
    assert (job.status, job.attempt, job.progress, job.message) == (COMPLETED, 3, 12, message)
    assert jobs.results(None, job.id) == "at last"
    assert "headway: " not in worker.log


def test_the_last_retry_fails(worker: Worker, jobs: headway.Client) -> None:
    job = end(jobs, worker.send("fail", retry=Retry(max=1)))
    assert (job.status, job.attempt, job.error.message) == (FAILED, 2, "ValueError: bad record")
    job = end(jobs, worker.send("never_enough"))
    assert (job.status, job.attempt, job.error.message) == (FAILED, 2, "no retry is left")


@pytest.mark.parametrize("retry", [None, Retry(max=2)])
def test_who_cancels_the_job_ends_the_work(retry: Retry | None, worker: Worker, jobs: headway.Client) -> None:
    sent = worker.send("until_cancelled", retry=retry)
    until(lambda: state(jobs, sent) is not None, 20)
    with watched(jobs, job_id(sent.id)):
        until(lambda: (job := state(jobs, sent)) is not None and job.progress == 1, 20)
        jobs.cancel(None, job_id(sent.id), reason="wrong file")
    job = end(jobs, sent)
    assert (job.status, job.error.message) == (CANCELLED, "JobCancelled: wrong file")
    until(lambda: worker.status(sent) == JobStatus.FAILED)
    assert len(list(jobs.list(labels={"task": sent.id}))) == 1


def test_an_id_of_ones_own_is_as_good(worker: Worker, jobs: headway.Client) -> None:
    sent = worker.send("stage", 3, id=f"nightly-{uuid4().hex}")
    assert end(jobs, sent).labels["task"] == sent.id


def test_results_that_cannot_be_kept_are_left_out(worker: Worker, jobs: headway.Client) -> None:
    job = end(jobs, worker.send("no_json"))
    assert (job.status, jobs.results(None, job.id)) == (COMPLETED, None)


def test_what_is_queued_once_more_gets_a_job_of_its_own(worker: Worker, jobs: headway.Client) -> None:
    sent = worker.send("fail")
    end(jobs, sent)
    until(lambda: worker.status(sent) == JobStatus.FAILED)
    sent.requeue()
    until(lambda: len(list(jobs.list(labels={"task": sent.id}, statuses=[headway.Status.FAILED]))) == 2, 20)


def test_threads_of_a_run_count_for_its_job(worker: Worker, jobs: headway.Client) -> None:
    job = end(jobs, worker.send("from_threads", 30))
    assert (job.status, job.progress) == (COMPLETED, 30)


def test_an_id_that_is_used_again_gets_a_job_for_each_run(worker: Worker, jobs: headway.Client) -> None:
    id = f"nightly-{uuid4().hex}"

    def ended(status: headway.Status) -> int:
        return len(list(jobs.list(labels={"task": id}, statuses=[status])))

    first = worker.send("until_cancelled", id=id, retry=Retry(max=2))
    until(lambda: state(jobs, first) is not None, 20)
    with watched(jobs, job_id(id)):
        jobs.cancel(None, job_id(id))
    until(lambda: worker.status(first) == JobStatus.FAILED, 20)
    worker.send("stage", 5, id=id)
    until(lambda: ended(headway.Status.COMPLETED) == 1, 20)
    worker.send("fail", id=id)
    until(lambda: ended(headway.Status.FAILED) == 1, 20)
    assert ended(headway.Status.CANCELLED) == 1


@only_forking
def test_a_run_with_an_id_that_was_used_before_is_ended_too(worker: Worker, jobs: headway.Client) -> None:
    first = worker.send("stage", 5)
    end(jobs, first)
    worker.send("killed", id=first.id)
    until(lambda: len(list(jobs.list(labels={"task": first.id}, statuses=[headway.Status.FAILED]))) == 1, 20)


@only_forking
def test_what_is_stopped_is_cancelled(worker: Worker, jobs: headway.Client) -> None:
    sent = worker.send("wait_for", "/nowhere")
    until(lambda: (job := state(jobs, sent)) is not None and job.progress == 3, 20)
    send_stop_job_command(worker.connection, sent.id)
    job = end(jobs, sent)
    assert (job.status, job.error.message) == (CANCELLED, "Job stopped by user, work-horse terminated.")
    # The worker goes on.
    assert end(jobs, worker.send("stage", 5)).status == COMPLETED


@only_forking
def test_what_is_killed_has_failed(worker: Worker, jobs: headway.Client) -> None:
    job = end(jobs, worker.send("killed"))
    assert job.status == FAILED
    assert job.error.message == "Work-horse terminated unexpectedly; waitpid returned 9 (signal 9)"


@only_forking
def test_a_retry_after_a_kill_takes_the_job_over(worker: Worker, jobs: headway.Client, tmp_path: Path) -> None:
    job = end(jobs, worker.send("killed_once", str(tmp_path / "mark"), retry=Retry(max=1)))
    assert (job.status, job.attempt, job.progress) == (COMPLETED, 2, 1)


@pytest.mark.parametrize("kind", ["headway.rq.Worker", "headway.rq.SimpleWorker"])
def test_a_worker_that_shuts_down_cold_cancels_its_work(
    kind: str, redis: RedisServer, server: ServerProcess, session: str, tmp_path: Path
) -> None:
    environment = {"HEADWAY_TARGET": server.address, "HEADWAY_SESSION": session}
    with headway.connect(server.address, session=session) as jobs:
        with Worker(redis, tmp_path, environment).running(kind) as worker:
            sent = worker.send("wait_for", "/nowhere")
            until(lambda: (job := state(jobs, sent)) is not None and job.progress == 3, 20)
            worker.interrupt()
            until(lambda: "warm shut down" in worker.log, 20)
            # RQ passes over another one within a second.
            time.sleep(1.05)
            worker.interrupt()
            until(lambda: "cold shut down" in worker.log, 20)
        job = end(jobs, sent)
        assert (job.status, job.error.message, job.progress) == (CANCELLED, "the worker was shut down", 3)


@pytest.mark.parametrize("kind", ["headway.rq.Worker", "headway.rq.SimpleWorker"])
def test_work_is_done_while_the_server_is_unreachable(
    kind: str, redis: RedisServer, own_server: ServerProcess, session: str, tmp_path: Path
) -> None:
    environment = {
        "HEADWAY_TARGET": own_server.address,
        "HEADWAY_SESSION": session,
        "HEADWAY_SPOOL": str(tmp_path / "spool"),
    }
    own_server.kill()
    with Worker(redis, tmp_path, environment).running(kind) as worker:
        begun = time.monotonic()
        sent = worker.send("stage", 50)
        failed = worker.send("fail")
        until(lambda: worker.status(sent) == JobStatus.FINISHED)
        assert time.monotonic() - begun < 5
        until(lambda: worker.status(failed) == JobStatus.FAILED)
        own_server.start()
        own_server.signal(signal.SIGSTOP)
        hung = worker.send("stage", 60)
        until(lambda: worker.status(hung) == JobStatus.FINISHED)
        own_server.signal(signal.SIGCONT)
    subprocess.run([*HEADWAY, "flush"], env=worker.environment, check=True, capture_output=True, timeout=30)
    with headway.connect(own_server.address, session=session) as jobs:
        assert (end(jobs, sent).status, end(jobs, sent).progress) == (COMPLETED, 50)
        assert (end(jobs, failed).status, end(jobs, failed).progress) == (FAILED, 2)
        assert (end(jobs, hung).status, end(jobs, hung).progress) == (COMPLETED, 60)


def test_without_a_session_the_work_is_done(redis: RedisServer, server: ServerProcess, tmp_path: Path) -> None:
    with Worker(redis, tmp_path, {"HEADWAY_TARGET": server.address}).running("headway.rq.Worker") as worker:
        sent = worker.send("retry", retry=Retry(max=3))
        until(lambda: worker.status(sent) == JobStatus.FAILED, 20)
        sent = worker.send("stage", 5)
        until(lambda: worker.status(sent) == JobStatus.FINISHED, 20)
        assert worker.log.count("not tracked: No session") == 1


def test_a_call_of_ones_own_is_not_tracked(session: str, server: ServerProcess) -> None:
    environment = {
        **os.environ,
        "HEADWAY_TARGET": server.address,
        "HEADWAY_SESSION": session,
        "PYTHONPATH": str(Path(__file__).parent),
    }
    script = "from rq_jobs import stage\nassert stage(5) == {'added': 5}"
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=30)
    with headway.connect(server.address, session=session) as jobs:
        assert not list(jobs.list())
