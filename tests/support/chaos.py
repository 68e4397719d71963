"""One row of the chaos table: a fault of the tracker, and workers that come to different ends while it lasts.

What must come of it does not depend on the fault. The worker's exit status, output, exception and time are its own;
and the job is just as its worker left it, at once or after `headway flush`.
"""

import json
import os
import random
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc

import headway
import headway._engine.dispatcher
from headway._spool.spool import SpoolRecord
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.caller import seconds
from tests.support.chaos_checker import (
    REASON,
    Own,
    differences,
    expected,
    left_complaints,
    look,
    offset_of,
    own_complaints,
)
from tests.support.chaos_worker import Bug, Plan
from tests.support.mount import small_disk
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]

RECORDS, PACE = 4000, 0.001
"""What a worker has to do, and the seconds that it has for each."""

RAISES_AT, DIES_AT = 2300, 2500

UNTIL_CANCELLED = 100_000
"""The records of a worker that only a cancellation request ends."""

ENDINGS = ("finishes", "raises", "killed", "cancelled")

HEARTBEAT, NOTICED_WITHIN = 2.0, 5.0
"""The heartbeat_timeout of jobs whose worker is killed, and how long the server may take to say LOST; in seconds."""

HANGS = 90.0
"""Seconds after which a process hangs."""


@dataclass
class Scene:
    """Where a row is played."""

    server: ServerProcess
    proxy: Proxy
    """The way of the workers to the server."""
    disk: Path
    chance: random.Random
    begun: threading.Event = field(default_factory=threading.Event)
    """All workers are at work."""
    gone: threading.Event = field(default_factory=threading.Event)
    """All workers have come to their end."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the tracker, and what that leaves possible."""

    strike: Callable[[Scene], None]
    """Does it, from before the workers begin; returns when all is well again."""
    there: bool = True
    """Whether there is a server at first."""
    reachable: bool = True
    """Whether anybody can cancel a job while its worker works."""
    proxied: bool = False
    """Whether workers reach the server over the proxy alone."""
    exact: bool = True
    """Whether the job must be right in the end."""
    small_disk: bool = False
    exit_timeout: float = 2.0
    answer_timeout: float = headway._engine.dispatcher.ANSWER_TIMEOUT
    records: int = RECORDS


class Worker:
    """A process that works to a plan."""

    def __init__(self, plan: Plan, environment: dict[str, str], folder: Path) -> None:
        folder.mkdir(parents=True)
        self._diary = Path(plan.diary)
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        with self._stdout.open("w") as stdout, self._stderr.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.chaos_worker", plan.to_json()],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    @property
    def at_work(self) -> bool:
        """Whether it works, or has worked."""
        return self._diary.exists() or self.gone

    @property
    def gone(self) -> bool:
        return self._process.poll() is not None

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._stdout.read_text()

    def wait(self) -> Own:
        """Returns when it has come to its end."""
        try:
            status = self._process.wait(HANGS)
        except subprocess.TimeoutExpired:
            raise AssertionError("the worker hangs") from None
        ended = time.monotonic()
        lines = self._diary.read_text().splitlines() if self._diary.exists() else []
        diary = {name: word for line in lines for name, word in json.loads(line).items()}
        return Own(status, self.stdout, self._stderr.read_text(), diary, ended)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Cell:
    """One worker under one fault, and its job."""

    def __init__(self, ending: str, fault: Fault, scene: Scene, folder: Path, bug: Bug) -> None:
        self._folder = folder
        self._exact = fault.exact
        self._server = scene.server
        self._session = f"session-{secrets.token_hex(8)}"
        self._spool = folder / "spool"
        self._environment = {
            # GRPC_VERBOSITY, which silences gRPC's own log in all tests, stays: it would tell of every broken header.
            **{name: value for name, value in os.environ.items() if not name.startswith("HEADWAY_")},
            "HEADWAY_TARGET": (scene.proxy if fault.proxied else scene.server).address,
            "HEADWAY_SESSION": self._session,
            "HEADWAY_SPOOL": str(self._spool),
        }
        self._cancels = ending == "cancelled" and fault.reachable
        self._outlives_request = ending == "cancelled" and not fault.reachable
        self._ending = "finishes" if self._outlives_request else ending
        self._plan = Plan(
            job_id=secrets.token_hex(16),
            diary=str(folder / "diary"),
            records=UNTIL_CANCELLED if self._cancels else fault.records,
            pace=PACE,
            raise_at=RAISES_AT if ending == "raises" else -1,
            die_at=DIES_AT if ending == "killed" else -1,
            cancellable=ending == "cancelled",
            audited=ending == "killed",
            heartbeat=HEARTBEAT if ending == "killed" else 60.0,
            exit_timeout=fault.exit_timeout,
            answer_timeout=fault.answer_timeout,
            bug=bug,
        )
        self.worker = Worker(self._plan, self._environment, folder / "first")

    def live(self) -> Own:
        """Returns when the worker has come to its end."""
        if self._cancels:
            until(lambda: "2000 records" in self.worker.stdout or self.worker.gone, HANGS)
            with grpc.insecure_channel(self._server.address) as channel:
                stub = JobServiceStub(channel)
                until(lambda: self.worker.gone or self._cancelled(stub), HANGS)
        return self.worker.wait()

    def judge(self, life: "Future[Own]") -> list[str]:
        """What is wrong, once the fault is over."""
        try:
            own = life.result()
        except AssertionError as error:
            return [str(error)]
        complaints = own_complaints(self._ending, own, self._plan)
        if not self._exact:
            return complaints + self._rubbish()
        complaints += self._flush()
        with grpc.insecure_channel(self._server.address) as channel:
            stub = JobServiceStub(channel)
            if self._ending == "killed":
                return complaints + self._succeed(stub, own)
            if self._outlives_request and self._cancelled(stub):
                complaints.append("a job that had ended could be cancelled")
            right = expected(self._ending, int(own.diary.get("done", 0)), self._plan.records)
            return complaints + differences(right, self._look(stub))

    def _succeed(self, stub: JobServiceStub, own: Own) -> list[str]:
        """A killed worker's job has what was acknowledged, is LOST soon, and is brought to its end by a second."""
        complaints, offset, attempt = list[str](), 0, 1
        if self._look(stub):
            attempt = 2
            try:
                until(lambda: self._look(stub)["status"] == "LOST", NOTICED_WITHIN)
            except AssertionError:
                complaints.append("nobody has noticed that the worker was killed")
            # What was still on its way to the server has arrived, or never will.
            left = self._look(stub)
            offset = offset_of(left)
            complaints += left_complaints(own.diary, left)
        elif "acknowledged" in own.diary:
            complaints.append("a job that was acknowledged is gone")
        plan = replace(
            self._plan, resumes=True, diary=str(self._folder / "second-diary"), pace=0.0, die_at=-1, audited=False
        )
        second = Worker(plan, self._environment, self._folder / "second")
        try:
            complaints += own_complaints("finishes", second.wait(), plan, offset)
        finally:
            second.kill()
        right = expected("finishes", plan.records, plan.records) | {"attempt": attempt}
        return complaints + self._flush() + differences(right, self._look(stub))

    def _cancelled(self, stub: JobServiceStub) -> bool:
        """Asks for the job's early end; whether the server has taken that in."""
        request = pb.CancelJobRequest(session_id=self._session, job_id=self._plan.job_id, reason=REASON)
        request.grace_period.CopyFrom(seconds(600))
        try:
            stub.CancelJob(request, timeout=2)
        except grpc.RpcError:
            return False
        return True

    def _left(self) -> list[Path]:
        return list(self._spool.iterdir()) if self._spool.exists() else []

    def _rubbish(self) -> list[str]:
        """What is in the spool and should not be there."""
        left = self._left()
        try:
            words = [SpoolRecord.decode(path.read_bytes()) for path in left if path.suffix == ".json"]
        except ValueError as error:
            return [f"a file in the spool cannot be read: {error}"]
        return [f"there is rubbish in the spool: {left}"] if not len(left) == len(words) <= 1 else []

    def _flush(self) -> list[str]:
        """Delivers what the worker has left in the spool, if anything."""
        if complaints := self._rubbish():
            return complaints
        if not self._left():
            return []
        done = subprocess.run(
            [sys.executable, "-m", "headway.cli", "flush"],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANGS,
            check=False,
        )
        if done.returncode or done.stderr or self._left():
            return [f"flush: exit status {done.returncode}, {done.stdout}{done.stderr}, left: {self._left()}"]
        return []

    def _look(self, stub: JobServiceStub) -> dict[str, object]:
        return look(stub, self._session, self._plan.job_id)


def play(
    fault: Fault, endings: Iterable[str], folder: Path, chance: random.Random, bug: Bug = ""
) -> dict[str, list[str]]:
    """Plays one row, and tells for each ending what is wrong."""
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk", "8m")) if fault.small_disk else folder
        server = stack.enter_context(ServerProcess(folder, database=f"sqlite:///{disk / 'headway.db'}"))
        if not fault.there:
            server.kill()
        proxy = stack.enter_context(Proxy(server.address))
        scene = Scene(server, proxy, disk, chance)
        pool = stack.enter_context(ThreadPoolExecutor())
        # Whatever happens, the fault comes to its end.
        stack.callback(scene.gone.set)
        stack.callback(scene.begun.set)
        strike = pool.submit(fault.strike, scene)
        cells = {ending: Cell(ending, fault, scene, folder / ending, bug) for ending in endings}
        for cell in cells.values():
            stack.callback(cell.worker.kill)
        until(lambda: all(cell.worker.at_work for cell in cells.values()), HANGS)
        scene.begun.set()
        lives = {cell: pool.submit(cell.live) for cell in cells.values()}
        wait(lives.values())
        scene.gone.set()
        strike.result()
        judgements = {ending: pool.submit(cell.judge, lives[cell]) for ending, cell in cells.items()}
        return {ending: judgement.result() for ending, judgement in judgements.items()}
