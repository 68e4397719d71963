"""OK means durable: what was acknowledged before the server was killed is there when it is back, and counted once."""

import copy
import os
import queue
import random
import secrets
import shutil
import sqlite3
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.history import History, Told, fetch
from tests.support.seeds import seeded
from tests.support.server import ServerProcess

ROUNDS = int(os.environ.get("FAULTS_ROUNDS", "20"))

WRITERS = 8
SHARED_JOBS = 50

SHARED = "shared"
"""The session of the jobs that all writers report on, each on a part of its own."""

LIFE_OF_LOAD = (0.05, 0.6)
"""The server is killed so many seconds after load begins, at random."""

STREAM_WINDOW = 16

GIVES_UP = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""What a caller sees when the server dies under it; the outcome is unknown."""


@contextmanager
def stub_of(server: ServerProcess) -> Iterator[JobServiceStub]:
    """A stub on a connection of its own."""
    with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield JobServiceStub(channel)


@dataclass(slots=True)
class Advances:
    """The advances of one writer on one job, in the order of their sequences, from 1."""

    totals: list[int] = field(default_factory=list)
    """Where the part stands after each of them."""
    acknowledged: int = 0
    """So many of them were acknowledged, from the first."""


class Writer:
    """Writes until the server dies, and remembers what it sent and what it was told."""

    def __init__(self, number: int, job_ids: list[str], history: History, chance: random.Random) -> None:
        self.name = f"w{number}"
        self.advances: defaultdict[str, Advances] = defaultdict(Advances)
        self.unknown = 0
        self._streams = number % 2 == 1
        self._job_ids = job_ids
        self._history = history
        self._chance = chance
        self._checkpoint = 0

    def run(self, server: ServerProcess, session_id: str) -> None:
        """Load of one round; `session_id` is for jobs of this round's own."""
        try:
            with stub_of(server) as stub:
                if self._streams:
                    self._stream(stub)
                while True:
                    self._write(stub, session_id)
        except grpc.RpcError as error:
            # Whatever else it says is a fault of the server's.
            assert error.code() in GIVES_UP, error

    def retry(self, server: ServerProcess) -> None:
        """Send again whatever has no answer yet, with its sequence."""
        with stub_of(server) as stub:
            for job_id, advances in self.advances.items():
                self.unknown += len(advances.totals) - advances.acknowledged
                for sequence in range(advances.acknowledged + 1, len(advances.totals) + 1):
                    self._report(stub, self._request(job_id, sequence))

    def total(self, job_id: str) -> int:
        """Where this writer's part of the job stands once all is counted."""
        totals = self.advances[job_id].totals
        return totals[-1] if totals else 0

    def _write(self, stub: JobServiceStub, session_id: str) -> None:
        dice = self._chance.random()
        if dice < 0.7:
            self._report(stub, self._next())
        elif dice < 0.85:
            self._checkpoint += 1
            variables = pb.SetVariablesRequest(session_id=SHARED, job_id=self._chance.choice(self._job_ids))
            variables.variables[self.name] = self._checkpoint
            self._history.told(variables, stub.SetVariables(variables, timeout=20))
            self._history.told_variables(variables)
        else:
            self._live_and_end(stub, session_id)

    def _live_and_end(self, stub: JobServiceStub, session_id: str) -> None:
        create = pb.CreateJobRequest(session_id=session_id, job_id=secrets.token_hex(16), name=self.name)
        self._history.told(create, stub.CreateJob(create, timeout=20))
        job_id = create.job_id
        report = pb.ReportProgressRequest(session_id=session_id, job_id=job_id, progress=self._chance.randrange(1000))
        self._history.told(report, stub.ReportProgress(report, timeout=20))
        finish = pb.FinishJobRequest(session_id=session_id, job_id=job_id)
        finish.results.struct_value["done"] = self._chance.random()
        self._history.may_end(finish)
        self._history.told(finish, stub.FinishJob(finish, timeout=20))
        self._history.told_results(finish)

    def _stream(self, stub: JobServiceStub) -> None:
        outbox: queue.SimpleQueue[pb.StreamProgressRequest | None] = queue.SimpleQueue()
        call = stub.StreamProgress(iter(outbox.get, None))
        waiting: deque[list[pb.ReportProgressRequest]] = deque()
        acked = 0
        try:
            while True:
                while len(waiting) < STREAM_WINDOW:
                    waiting.append([self._next() for _ in range(3)])
                    outbox.put(pb.StreamProgressRequest(reports=waiting[-1]))
                response = next(call)
                assert not response.failures
                for _ in range(acked, response.acked):
                    for report in waiting.popleft():
                        self._acknowledged(report)
                acked = response.acked
        finally:
            outbox.put(None)
            call.cancel()

    def _next(self) -> pb.ReportProgressRequest:
        job_id = self._chance.choice(self._job_ids)
        totals = self.advances[job_id].totals
        totals.append(self.total(job_id) + self._chance.randint(1, 5))
        return self._request(job_id, len(totals))

    def _request(self, job_id: str, sequence: int) -> pb.ReportProgressRequest:
        totals = [0, *self.advances[job_id].totals[max(0, sequence - 2) : sequence]]
        return pb.ReportProgressRequest(
            session_id=SHARED, job_id=job_id, part=self.name, sequence=sequence, advance=totals[-1] - totals[-2]
        )

    def _report(self, stub: JobServiceStub, request: pb.ReportProgressRequest) -> None:
        self._history.told(request, stub.ReportProgress(request, timeout=20))
        self._acknowledged(request)

    def _acknowledged(self, request: pb.ReportProgressRequest) -> None:
        advances = self.advances[request.job_id]
        assert request.sequence == advances.acknowledged + 1
        advances.acknowledged = request.sequence
        self._history.told_part(request, advances.totals[request.sequence - 1])


def assert_sound(database: Path, scratch: Path) -> None:
    """The files of a server that is down are whole. SQLite looks at a copy: to look is to repair."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for file in (database, database.with_name(f"{database.name}-wal")):
        if file.exists():
            shutil.copy(file, scratch)
    with closing(sqlite3.connect(scratch / database.name)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_nothing_acknowledged_is_lost_or_counted_twice_by_kills(own_server: ServerProcess, tmp_path: Path) -> None:
    chance = seeded("kill")
    history = History()
    job_ids = [f"{chance.getrandbits(128):032x}" for _ in range(SHARED_JOBS)]
    with stub_of(own_server) as stub:
        for job_id in job_ids:
            create = pb.CreateJobRequest(session_id=SHARED, job_id=job_id)
            history.told(create, stub.CreateJob(create, timeout=20))
    writers = [Writer(n, job_ids, history, random.Random(chance.random())) for n in range(WRITERS)]
    for number in range(ROUNDS):
        with ThreadPoolExecutor(WRITERS) as pool:
            loads = [pool.submit(writer.run, own_server, f"round-{number}") for writer in writers]
            time.sleep(chance.uniform(*LIFE_OF_LOAD))
            own_server.kill()
        for load in loads:
            load.result()
        assert_sound(tmp_path / "headway.db", tmp_path / "copy")
        own_server.start()
        with stub_of(own_server) as stub:
            assert history.complaints(fetch(stub, history)) == []
            for writer in writers:
                writer.retry(own_server)
            shared = {job_id: stored.job for (_, job_id), stored in fetch(stub, history, SHARED).items()}
        for job_id in job_ids:
            counted = {writer.name: writer.total(job_id) for writer in writers if writer.total(job_id)}
            assert dict(shared[job_id].parts) == counted
    print(f"{history.acknowledged} acknowledged, {sum(w.unknown for w in writers)} unknown")
    assert history.acknowledged > 50 * ROUNDS, "there was no load worth the name"
    assert any(writer.unknown for writer in writers), "no kill came in between"
    assert sum(told.results is not None for told in history.jobs.values()) > ROUNDS


def one_of_each(stub: JobServiceStub, history: History) -> dict[str, str]:
    """Four jobs, each of which gets one more acknowledged commit of another kind, when called a second time."""
    job_ids = {kind: f"{number:032x}" for number, kind in enumerate(("report", "variables", "finish", "create"))}
    second = bool(history.jobs)
    for kind, job_id in job_ids.items():
        if second == (kind == "create"):
            create = pb.CreateJobRequest(session_id=SHARED, job_id=job_id)
            history.told(create, stub.CreateJob(create))
    report = pb.ReportProgressRequest(session_id=SHARED, job_id=job_ids["report"], part="a", advance=1)
    reply = stub.ReportProgress(report)
    history.told(report, reply)
    history.told_part(report, reply.progress)
    variables = pb.SetVariablesRequest(session_id=SHARED, job_id=job_ids["variables"])
    variables.variables["x"] = 1 + second
    history.told(variables, stub.SetVariables(variables))
    history.told_variables(variables)
    if second:
        finish = pb.FinishJobRequest(session_id=SHARED, job_id=job_ids["finish"])
        finish.results.number_value = 7
        history.may_end(finish)
        history.told(finish, stub.FinishJob(finish))
        history.told_results(finish)
    return job_ids


def test_the_checker_sees_a_store_that_lost_a_commit(own_server: ServerProcess, tmp_path: Path) -> None:
    """A planted loss: the files from before the last commits, put in the place of those after them."""
    history = History()
    with stub_of(own_server) as stub:
        one_of_each(stub, history)
    own_server.stop()
    database = tmp_path / "headway.db"
    before = database.read_bytes()
    own_server.start()
    with stub_of(own_server) as stub:
        job_ids = one_of_each(stub, history)
        assert history.complaints(fetch(stub, history)) == []
    own_server.kill()
    for file in tmp_path.glob("headway.db-*"):
        file.unlink()
    database.write_bytes(before)
    own_server.start()
    with stub_of(own_server) as stub:
        complaints = "\n".join(history.complaints(fetch(stub, history)))
    for kind, job_id in job_ids.items():
        assert f"job {job_id}" in complaints, f"the checker overlooks a lost {kind}"


def _revision(told: Told) -> None:
    told.revision += 1


def _status(told: Told) -> None:
    told.status = job_pb2.JOB_STATUS_COMPLETED if told.results is None else job_pb2.JOB_STATUS_FAILED


def _progress(told: Told) -> None:
    told.progress += 1


def _part(told: Told) -> None:
    told.parts["a"] = told.parts.get("a", 0) + 1


def _variable(told: Told) -> None:
    told.variables["x"] = 99


def _results(told: Told) -> None:
    told.results = '{"other": 1}'


def _nobody_ended_it(told: Told) -> None:
    told.may_end = False


def test_the_checker_sees_a_falsified_history(server: ServerProcess) -> None:
    history = History()
    with stub_of(server) as stub:
        one_of_each(stub, history)
        job_ids = one_of_each(stub, history)
        stored = fetch(stub, history)
    assert history.complaints(stored) == []
    for falsify in (_revision, _status, _progress, _part, _variable, _results, _nobody_ended_it):
        false = History()
        false.jobs = copy.deepcopy(history.jobs)
        falsify(false.jobs[SHARED, job_ids["finish"]])
        assert false.complaints(stored), f"the checker overlooks {falsify.__name__}"
    for job_id in job_ids.values():
        rest = {key: value for key, value in stored.items() if key[1] != job_id}
        assert history.complaints(rest) == [f"job {job_id} is gone"]
