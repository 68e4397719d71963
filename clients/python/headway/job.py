"""A job in the hands of its worker."""

import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self
from weakref import WeakValueDictionary

from google.rpc import code_pb2, status_pb2

from headway._engine import process_parts
from headway._engine.argument_checks import checked
from headway._engine.job_state import JobState, PendingCall, Signal
from headway._engine.lifecycle import Connection
from headway.errors import HeadwayError, end_status, failure
from headway.limits import NAME_LENGTH
from headway.meter import Meter, Sample
from headway.status import Status as Status
from headway.target import Target
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from headway.values import Json, as_size, clean, to_value

if TYPE_CHECKING:
    from pathlib import Path

    from headway.client import Client

UNSET = object()


class BaseJob(Meter):
    """What synchronous and asyncio jobs have in common: all that does not wait. A job is the meter of its part "".

    Updates are sent by a thread in the background, at the pace that the server asks for. None of them waits, and none
    raises because the server is away or refuses it: that is a warning of the logger `headway`.
    """

    def __init__(self, client: Connection, session: str, job: job_pb2.Job, *, heartbeat: float, started: bool) -> None:
        super().__init__("", job.parts.get("", 0))
        self._connection = client
        self._engine = client._engine
        self._job_state = JobState(session, job, self, heartbeat=heartbeat, started=started)
        client._job_states.add(self._job_state)
        self._ended = False
        self._joined = False
        self._known: dict[str, Json | object] = {}
        self._pid = os.getpid()
        self._results: object = UNSET
        self._expected = 0
        """The size, as long as it is no more than the length of what is tracked."""

    def __reduce__(self) -> str | tuple[object, ...]:
        """A job that is passed to another process is attached to there: what that process does is a part of its own,
        and to leave a `with` block there does not end the job."""
        target = self._connection.target
        if target.token and target.token != os.environ.get("HEADWAY_TOKEN"):
            raise TypeError(
                "A token is not passed on: set HEADWAY_TOKEN, or call headway.connect(token=…).fetch(session, job_id)"
                " in the other process and report a part() of its own."
            )
        where = target.address, target.ca, target.tls
        creation = self._job_state.creation()
        about = self.snapshot.SerializeToString(), creation.SerializeToString() if creation else b""
        return attach, (type(self._connection), where, self.session, *about, process_parts.address())

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<headway job {self.id} {self.name!r} {self.status}>"

    @property
    def id(self) -> str:
        """32 hexadecimal digits, chosen by this client."""
        return self._job_state.job.id

    @property
    def session(self) -> str:
        """The session id: a secret, keep it out of logs."""
        return self._job_state.session

    @property
    def status(self) -> Status:
        """As the server last said; `refresh()` asks it."""
        return Status(self._job_state.job.status)

    @property
    def snapshot(self) -> job_pb2.Job:
        """All that the server last said of the job, progress over all parts included; `refresh()` asks it."""
        return self._job_state.job

    @property
    def attempt(self) -> int:
        """Which worker this is: 1, and one more after each take-over."""
        return self._job_state.attempt

    @property
    def unit(self) -> str:
        """What is counted: "records"."""
        return self._job_state.job.unit

    @property
    def name(self) -> str:
        """What the job is, for people. Can be set: the first 256 characters."""
        return self._job_state.job.name

    @name.setter
    def name(self, text: str) -> None:
        self._update("name", text)

    @property
    def invoker(self) -> str:
        """Who or what started it. Can be set: the first 256 characters."""
        return self._job_state.job.invoker

    @invoker.setter
    def invoker(self, text: str) -> None:
        self._update("invoker", text)

    @property
    def size(self) -> int:
        """How much there is to do, in units; 0 = not known. Can be set: None, NaN, infinity and what is negative mean
        the same; a fraction is cut off, and the most is 2⁶³-1."""
        return self._job_state.job.size if self._size is None else self._size

    @size.setter
    def size(self, units: float | None) -> None:
        self._touch()
        self._size = as_size(units)

    @property
    def cancelled(self) -> Signal:
        """True, and an event that is set, once the server has said that somebody wants the job to end early."""
        return self._job_state.cancelled

    @property
    def cancellation(self) -> job_pb2.Cancellation | None:
        """Why the job shall end early and until when, or None."""
        job = self._job_state.job
        return job.cancellation if job.HasField("cancellation") else None

    def raise_if_cancelled(self) -> None:
        """Raises JobCancelled, with the reason, once somebody wants the job to end early."""
        self._job_state.raise_if_cancelled()

    @property
    def stopped(self) -> HeadwayError | None:
        """Why the server takes no more reports of this worker (reasons STALE_ATTEMPT, JOB_ENDED, …), or None."""
        return self._job_state.error

    def raise_if_stopped(self) -> None:
        """Raises why the server takes no more reports of this worker: StateError if another has taken the job over, or
        it has ended without this one; NotFoundError if it was cleared."""
        self._job_state.raise_if_stopped()

    @property
    def on_stopped(self) -> Callable[[HeadwayError], object] | None:
        """Called once, from a thread in the background, with what `raise_if_stopped` raises; at once if it is set too
        late. It should return soon: no job of this process is reported meanwhile. None after that."""
        return self._job_state.on_stopped

    @on_stopped.setter
    def on_stopped(self, callback: Callable[[HeadwayError], object] | None) -> None:
        self._engine.listen(self._job_state, callback)

    @property
    def results(self) -> Json | object:
        """What came of it: a map by custom, at most 1 MiB as JSON. Set it before the job ends. Of a fetched job:
        the results as they were then, None unless it was COMPLETED."""
        return None if self._results is UNSET else self._results

    @results.setter
    def results(self, results: object) -> None:
        self._results = results

    def part(self, name: str) -> Meter:
        """The meter of one part, for a thread or process that shares the job: its progress adds to the job's.
        Names have at most 128 characters, a job at most 256 parts."""
        self._touch()
        return self._job_state.add_part(clean(name, 128))

    def set(self, variables: Mapping[str, object]) -> None:
        self._known.update(variables)
        super().set(variables)

    def checkpoint(self, variables: Mapping[str, object]) -> None:
        self._known.update(variables)
        super().checkpoint(variables)

    def _expect(self, length: int) -> None:
        if length and self.size == 0:
            self.size = self._expected = length

    def _sample(self, room: int) -> Sample:
        sample = super()._sample(room)
        # More than a length has promised: it was wrong, or not all that there is to do.
        if self._expected and sample.progress > self._expected:
            expected, self._expected = self._expected, 0
            if self._size == expected:
                self._size = 0
                return sample._replace(size=0)
        return sample

    def _begin_with(self, request: rpc.CreateJobRequest) -> PendingCall:
        self._joined = True
        pending_call = PendingCall(request)
        self._engine.submit(self._job_state, pending_call)
        return pending_call

    def _touch(self) -> None:
        """A job that was only fetched is reported from its first change on."""
        if not self._joined:
            self._joined = True
            vars(self).pop("advance", None)
            self._engine.submit(self._job_state)

    def _look_only(self) -> Self:
        # The two quick ways to change a meter do not call _touch, so that they stay quick; they are barred instead.
        vars(self)["advance"] = self._first_advance
        self._bar()
        return self

    def _first_advance(self, n: float = 1) -> None:
        self._touch()
        self.advance(n)

    def _update(self, field: str, text: str) -> None:
        self._joined = True
        text = clean(text, NAME_LENGTH)
        setattr(self._job_state.job, field, text)
        request = rpc.UpdateJobRequest(session_id=self.session, job=job_pb2.Job(id=self.id))
        setattr(request.job, field, text)
        request.update_mask.paths.append(field)
        self._engine.submit(self._job_state, PendingCall(request))

    def _end(self, error: status_pb2.Status | None) -> PendingCall | None:
        """Asks for the end of the job, once; None if it was asked for before."""
        if self._ended:
            return None
        self._ended = self._joined = True
        request: rpc.FinishJobRequest | rpc.FailJobRequest
        if error is not None:
            request = rpc.FailJobRequest(session_id=self.session, job_id=self.id, error=error)
        else:
            request = rpc.FinishJobRequest(session_id=self.session, job_id=self.id)
            if self._results is not UNSET:
                request.results.CopyFrom(to_value(self._results))
        pending_call = PendingCall(request, after_reports=True)
        self._engine.submit(self._job_state, pending_call)
        return pending_call

    def _abandon(self) -> None:
        self._ended = self._joined = True
        self._engine.submit(self._job_state, PendingCall(release=True))

    def _leave(self, error: BaseException | None) -> PendingCall | None:
        """The end of the `with` block. In a forked child the job is the parent's to end."""
        return self._end(end_status(error)) if os.getpid() == self._pid else None


class Job(BaseJob):
    """A job in the hands of its worker; made by `Client.job`, `new`, `resume` and `fetch`.

    As a context manager it ends with its block: COMPLETED with `results`; FAILED, with "Type: message", if an
    exception leaves the block; CANCELLED for KeyboardInterrupt, CancelledError and JobCancelled. `SystemExit` counts by
    its status: 0 or None completes the job. The exception goes on unchanged.

    The end of a job waits until the server has it, as long as the server answers, at most `exit_timeout` seconds; what
    is left goes on in the background.
    """

    def __init__(self, client: "Client", session: str, job: job_pb2.Job, *, heartbeat: float, started: bool) -> None:
        super().__init__(client, session, job, heartbeat=heartbeat, started=started)
        self._client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settle(self._leave(error))

    @checked
    def finish(self, results: object = UNSET) -> None:
        """Ends the job as COMPLETED, with results if given here or set before."""
        if results is not UNSET:
            self.results = results
        self._settle(self._end(None))

    @checked
    def fail(self, error: object, code: int = code_pb2.UNKNOWN) -> None:
        """Ends the job as FAILED because of an exception or a text; with the google.rpc.Code CANCELLED as CANCELLED."""
        self._settle(self._end(failure(error, code)))

    @checked
    def get(self, key: str) -> Json | object:
        """A variable, None if it was never set. What this process set, or took over, is answered from memory; for the
        rest the server is asked. HeadwayError if that fails."""
        if key in self._known:
            return self._known[key]
        return self._client.variables(self.session, self.id, [key]).get(key)

    def refresh(self) -> Self:
        """Asks the server how the job stands. HeadwayError if that fails."""
        self._job_state.job = self._client.get(self.session, self.id)
        if self.status is Status.COMPLETED and self._results is UNSET:
            self._results = self._client.results(self.session, self.id)
        return self

    @checked
    def cancel(self, reason: str = "", grace: float | None = None) -> None:
        """Asks the job's worker to end early; see `Client.cancel`."""
        self._job_state.job = self._client.cancel(self.session, self.id, reason=reason, grace=grace)

    def clear(self) -> None:
        """Removes the job and all that belongs to it; nothing more is reported. HeadwayError if that fails."""
        self._abandon()
        self._client.clear(self.session, self.id)

    @checked
    def wait(self, timeout: float | None = None) -> job_pb2.Job:
        """Waits until the job has ended, whoever ends it, and gives its final state. TimeoutError after `timeout`
        seconds; NotFoundError if it is cleared meanwhile."""
        for job in self._client.watch(self.session, self.id, timeout=timeout):
            self._job_state.job = job
        return self._job_state.job

    @checked
    def flush(self, timeout: float | None = None) -> bool:
        """Waits until all said so far is stored, at most `timeout` seconds (default: `exit_timeout`); whether it is."""
        late = self._engine.flush([self._job_state], self._client.exit_timeout if timeout is None else timeout)
        return not late and self._job_state.error is None

    def _settle(self, pending_call: PendingCall | None) -> None:
        if pending_call is not None:
            self._client._settle(pending_call, self._job_state, self._client.exit_timeout)


_attached: WeakValueDictionary[tuple[object, ...], BaseJob] = WeakValueDictionary()
_attaching = threading.Lock()
_clients: dict[tuple[str, Target], Connection] = {}


def attach(
    kind: type[Connection],
    where: tuple[str, "Path | None", bool],
    session: str,
    state: bytes,
    creation: bytes,
    relatives: tuple[str, bytes],
) -> BaseJob:
    """The job of another process, in whose hands it stays. The same one each time that it is passed."""
    process_parts.join(*relatives)
    address, ca, tls = where
    target = Target(address, os.environ.get("HEADWAY_TOKEN") or None, ca, tls)
    described = job_pb2.Job.FromString(state)
    described.attempt = described.attempt or 1
    described.parts.clear()
    with _attaching:
        client = _clients.get((kind.__module__, target))
        if client is None:
            client = _clients[kind.__module__, target] = kind(target)
        key = os.getpid(), client, session, described.id
        job = _attached.get(key)
        if job is None:
            job = _attached[key] = client._attach(session, described)
            job._pid = 0
            job._job_state.adopt(process_parts.part())
            job._look_only()
            if creation:
                # Not answered yet, and a report of a job that does not exist would be the last.
                job._begin_with(rpc.CreateJobRequest.FromString(creation))
        return job
