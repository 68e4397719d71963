"""All attacks at once, with honest callers beside: `python -m tests.faults.worst_mix --seconds 60`.

Prints how the honest callers fared and how much memory the server took, and exits with 1 if that breaks a promise.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
from google.protobuf import duration_pb2

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.faults import attacks
from tests.support.memory import resident
from tests.support.server import ServerProcess

MIB = 1024 * 1024

SLOWEST = 0.5
"""Seconds in which 99 of 100 honest calls must be answered."""

RESIDENT_MAX = 1024 * MIB
LEFT_MAX = 50 * MIB
"""Bytes that the server may take, and may still have of it once the attackers are gone."""

GAP_MAX = 0.5
"""Seconds that the event loop may stand still: the pool's threads compute beside it, each with its turn."""

SETTLED_WITHIN = 60.0
"""Seconds in which the memory must be free again."""

HEARTBEAT = duration_pb2.Duration(seconds=5)

SESSION = "honest"


@dataclass
class Outcome:
    """How the honest callers fared."""

    seconds: list[float] = field(default_factory=list)
    """How long each call took."""
    errors: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    seen: int = 0
    """States that the watcher saw."""
    before: int = 0
    most: int = 0
    after: int = 0
    """The server's resident bytes."""
    ready: Counter[int] = field(default_factory=Counter)
    """Answers of /readyz."""

    @property
    def slowest(self) -> float:
        """The 99th percentile (s)."""
        return quantiles(self.seconds, n=100)[-1]

    def complaints(self) -> list[str]:
        """Which promises are broken."""
        found = self.crossed_bounds()
        if self.slowest > SLOWEST:
            found.append(f"1 of 100 honest calls took {self.slowest * 1000:.0f} ms or longer")
        found += [f"{count} honest calls ended with {error}" for error, count in self.errors.items()]
        if self.lost:
            found.append(f"{self.lost} jobs were LOST though their workers reported")
        if self.after - self.before > LEFT_MAX:
            found.append(f"{(self.after - self.before) // MIB} MiB were left after the attack")
        return found

    def crossed_bounds(self) -> list[str]:
        """Those of them that do not depend on how fast the machine is."""
        found = []
        if not self.seen:
            found.append("the watcher saw nothing")
        if set(self.ready) - {200}:
            found.append(f"/readyz answered {dict(self.ready)}")
        if self.most > RESIDENT_MAX:
            found.append(f"the server took {self.most // MIB} MiB")
        return found

    def __str__(self) -> str:
        return (
            f"{len(self.seconds)} honest calls: median {median(self.seconds) * 1000:.1f} ms, "
            f"p99 {self.slowest * 1000:.0f} ms, longest {max(self.seconds) * 1000:.0f} ms, errors {dict(self.errors)}, "
            f"LOST {self.lost}, states seen {self.seen}; /readyz {dict(self.ready)}; resident "
            f"{self.before // MIB} MiB before, {self.most // MIB} at most, {self.after // MIB} after"
        )


class Honest:
    """A worker with many jobs, a watcher and a reader."""

    def __init__(self, server: ServerProcess, outcome: Outcome) -> None:
        self._outcome = outcome
        self._jobs = JobServiceStub(grpc.insecure_channel(server.address, attacks.OWN_CONNECTION))
        self._watching = JobServiceStub(grpc.insecure_channel(server.address, attacks.OWN_CONNECTION))
        self._server = server
        self._stop = threading.Event()
        requests = [pb.CreateJobRequest(session_id=SESSION, heartbeat_timeout=HEARTBEAT) for _ in range(20)]
        self._ids = [self._jobs.CreateJob(request).id for request in requests]

    def _timed(self, call: Callable[[], object]) -> None:
        began = time.monotonic()
        try:
            call()
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            self._outcome.errors[str(error.code())] += 1
        self._outcome.seconds.append(time.monotonic() - began)

    def work(self) -> None:
        """Report every job in turn."""
        while not self._stop.wait(0.02):
            for job_id in self._ids:
                request = pb.ReportProgressRequest(session_id=SESSION, job_id=job_id, advance=1)
                self._timed(partial(self._jobs.ReportProgress, request, timeout=20))

    def read(self) -> None:
        """Get a job, list the session, ask whether the server is ready."""
        job = pb.GetJobRequest(session_id=SESSION, job_id=self._ids[0])
        session = pb.ListJobsRequest(session_id=SESSION)
        while not self._stop.wait(0.1):
            self._timed(partial(self._jobs.GetJob, job, timeout=20))
            self._timed(partial(self._jobs.ListJobs, session, timeout=20))
            began = time.monotonic()
            try:
                with urlopen(f"http://{self._server.http_address}/readyz", timeout=20) as response:
                    self._outcome.ready[response.status] += 1
            except HTTPError as error:
                self._outcome.ready[error.code] += 1
            except OSError:
                self._outcome.ready[0] += 1
            self._outcome.seconds.append(time.monotonic() - began)

    def watch(self) -> None:
        """Watch the session; take the watch up again as documented."""
        token = ""
        while not self._stop.is_set():
            try:
                for seen in self._watching.WatchJobs(
                    pb.WatchJobsRequest(session_id=SESSION, resume_token=token), timeout=10
                ):
                    if self._stop.is_set():
                        # Nobody reports any more.
                        return
                    token = seen.resume_token
                    self._outcome.seen += 1
                    self._outcome.lost += seen.job.status == job_pb2.JOB_STATUS_LOST
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)
                if error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                    self._outcome.errors[f"watch {error.code()}"] += 1

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def attackers(server: ServerProcess, names: Sequence[str]) -> Iterator[None]:
    """A process for each attack, while within."""
    command = ["nice", "-n", "19", sys.executable, "-m", "tests.faults.attacks"]
    processes = [
        subprocess.Popen([*command, name, server.address, server.http_address], stderr=subprocess.DEVNULL)
        for name in names
    ]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def run(folder: Path, seconds: float, names: Sequence[str] = tuple(attacks.ATTACKS), settle: float = 0) -> Outcome:
    """Attack a server for so long (s), and give it as long as `settle` to free its memory."""
    outcome = Outcome()
    with ServerProcess(folder, gap_max=GAP_MAX) as server:
        attacks.prepare(server.address)
        outcome.before = outcome.most = resident(server.pid)
        honest = Honest(server, outcome)
        with ThreadPoolExecutor(3) as pool:
            running = [pool.submit(work) for work in (honest.work, honest.read, honest.watch)]
            try:
                with attackers(server, names):
                    end = time.monotonic() + seconds
                    while time.monotonic() < end:
                        outcome.most = max(outcome.most, resident(server.pid))
                        time.sleep(0.1)
            finally:
                honest.stop()
            for future in running:
                future.result()
        end = time.monotonic() + settle
        outcome.after = resident(server.pid)
        while outcome.after - outcome.before > LEFT_MAX and time.monotonic() < end:
            time.sleep(0.5)
            outcome.after = resident(server.pid)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to attack (60)")
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"of {', '.join(attacks.ATTACKS)}; all by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), arguments.seconds, arguments.attacks or tuple(attacks.ATTACKS), SETTLED_WITHIN)
    print(outcome)
    complaints = outcome.complaints()
    for complaint in complaints:
        print(f"broken: {complaint}")
    return 1 if complaints else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
