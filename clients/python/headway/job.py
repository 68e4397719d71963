"""A job as its worker uses it."""

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
    """The common part of synchronous and asyncio jobs: everything that does not wait. A job is the meter of its part
    "".

    A background thread sends updates at the interval that the server asks for. An update never waits. It never raises
    because the server does not answer or refuses it: the logger `headway` warns instead.
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
        """The size, while it is only the length of the tracked iterable."""

    def __reduce__(self) -> str | tuple[object, ...]:
        """A job that is passed to another process reports there as a part of its own. The end of a `with` block in that
        process does not end the job."""
        target = self._connection.target
        if target.token and target.token != os.environ.get("HEADWAY_TOKEN"):
            raise TypeError(
                "A token is not passed to other processes: set HEADWAY_TOKEN, or call"
                " headway.connect(token=…).fetch(session, job_id) in the other process and report a part() of its own."
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
        """The session id. It is a secret: keep it out of logs."""
        return self._job_state.session

    @property
    def status(self) -> Status:
        """The last status from the server. `refresh()` updates it."""
        return Status(self._job_state.job.status)

    @property
    def snapshot(self) -> job_pb2.Job:
        """The last state from the server, with the progress of all parts. `refresh()` updates it."""
        return self._job_state.job

    @property
    def attempt(self) -> int:
        """The number of this worker: 1, and one more after each take-over."""
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
        """The person or program that started it. Can be set: the first 256 characters."""
        return self._job_state.job.invoker

    @invoker.setter
    def invoker(self, text: str) -> None:
        self._update("invoker", text)

    @property
    def size(self) -> int:
        """How much there is to do, in units; 0 = not known. Can be set: None, NaN, infinity and negative numbers also
        mean not known. A fraction is cut off, and the maximum is 2⁶³-1."""
        return self._job_state.job.size if self._size is None else self._size

    @size.setter
    def size(self, units: float | None) -> None:
        self._touch()
        self._size = as_size(units)

    @property
    def cancelled(self) -> Signal:
        """An event. It is set, and true, once a cancellation request has arrived."""
        return self._job_state.cancelled

    @property
    def cancellation(self) -> job_pb2.Cancellation | None:
        """The cancellation request with its reason and deadline, or None."""
        job = self._job_state.job
        return job.cancellation if job.HasField("cancellation") else None

    def raise_if_cancelled(self) -> None:
        """Raises JobCancelled with the reason once a cancellation request has arrived."""
        self._job_state.raise_if_cancelled()

    @property
    def stopped(self) -> HeadwayError | None:
        """Why the server takes no more reports of this worker (reasons STALE_ATTEMPT, JOB_ENDED, …), or None."""
        return self._job_state.error

    def raise_if_stopped(self) -> None:
        """Raises the reason why the server takes no more reports of this worker: StateError if another worker has taken
        the job over, or if it has ended without this one; NotFoundError if it was cleared."""
        self._job_state.raise_if_stopped()

    @property
    def on_stopped(self) -> Callable[[HeadwayError], object] | None:
        """A function that is called once, in a background thread, with the error that `raise_if_stopped` raises. It is
        called at once if the job is stopped already. It should return soon: no job of this process is reported
        meanwhile. None after the call."""
        return self._job_state.on_stopped

    @on_stopped.setter
    def on_stopped(self, callback: Callable[[HeadwayError], object] | None) -> None:
        self._engine.listen(self._job_state, callback)

    @property
    def results(self) -> Json | object:
        """The results of the job, by convention a dict: at most 1 MiB as JSON. Set them before the job ends. A fetched
        job has the results of that moment, or None unless it was COMPLETED."""
        return None if self._results is UNSET else self._results

    @results.setter
    def results(self, results: object) -> None:
        self._results = results

    def part(self, name: str) -> Meter:
        """The meter of one part, for a thread or process that shares the job. Its progress is added to the job's.
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
        # The progress exceeds the length: the length was wrong, or is only a part of the work.
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
        """A fetched job is reported from its first change on."""
        if not self._joined:
            self._joined = True
            vars(self).pop("advance", None)
            self._engine.submit(self._job_state)

    def _look_only(self) -> Self:
        # The two fast ways to change a meter do not call _touch, so that they stay fast. They are redirected instead.
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
        """Asks once for the end of the job. None if the end was asked for before."""
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
        """The end of the `with` block. In a forked child it does nothing, because the parent ends the job."""
        return self._end(end_status(error)) if os.getpid() == self._pid else None


class Job(BaseJob):
    """A job as its worker uses it. `Client.job`, `new`, `resume` and `fetch` create it.

    As a context manager the job ends with its block: COMPLETED with `results`; FAILED with "Type: message" if an
    exception leaves the block; CANCELLED for KeyboardInterrupt, CancelledError and JobCancelled. For `SystemExit` the
    status decides: 0 or None completes the job. The exception is passed on unchanged.

    The end of a job waits until the server has stored it, while the server answers and at most `exit_timeout` seconds.
    After that, delivery continues in the background.
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
        """Ends the job as COMPLETED, with the results that are given here or were set before."""
        if results is not UNSET:
            self.results = results
        self._settle(self._end(None))

    @checked
    def fail(self, error: object, code: int = code_pb2.UNKNOWN) -> None:
        """Ends the job as FAILED with an exception or a text, or as CANCELLED if `code` is CANCELLED of
        google.rpc.Code."""
        self._settle(self._end(failure(error, code)))

    @checked
    def get(self, key: str) -> Json | object:
        """A variable, or None if it was never set. Variables that this process has set or taken over come from memory.
        For others it asks the server. HeadwayError if that fails."""
        if key in self._known:
            return self._known[key]
        return self._client.variables(self.session, self.id, [key]).get(key)

    def refresh(self) -> Self:
        """Fetches the state of the job from the server. HeadwayError if that fails."""
        self._job_state.job = self._client.get(self.session, self.id)
        if self.status is Status.COMPLETED and self._results is UNSET:
            self._results = self._client.results(self.session, self.id)
        return self

    @checked
    def cancel(self, reason: str = "", grace: float | None = None) -> None:
        """Asks the job's worker to end early; see `Client.cancel`."""
        self._job_state.job = self._client.cancel(self.session, self.id, reason=reason, grace=grace)

    def clear(self) -> None:
        """Removes the job and all its data. Nothing more is reported. HeadwayError if that fails."""
        self._abandon()
        self._client.clear(self.session, self.id)

    @checked
    def wait(self, timeout: float | None = None) -> job_pb2.Job:
        """Waits until the job has ended, in any way, and returns its final state. TimeoutError after `timeout` seconds.
        NotFoundError if it is cleared meanwhile."""
        for job in self._client.watch(self.session, self.id, timeout=timeout):
            self._job_state.job = job
        return self._job_state.job

    @checked
    def flush(self, timeout: float | None = None) -> bool:
        """Waits until all updates so far are stored, at most `timeout` seconds (default: `exit_timeout`). Returns
        whether they are."""
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
    """A job that another process owns. Each time that it is passed gives the same object."""
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
                # Its creation is not answered yet. A report of a job that does not exist would stop the job.
                job._begin_with(rpc.CreateJobRequest.FromString(creation))
        return job
