"""Leaves in the spool what this process could not deliver, and sends what earlier ones left."""

import enum
from collections.abc import Iterable, Iterator, Sequence

import grpc

from headway._engine.calls import method
from headway._engine.connection_state import in_words, log
from headway._engine.error_policy import Decision, judge
from headway._engine.job_state import JobState
from headway._engine.native_threads import Thread, has_greenlets
from headway._engine.reporter import remove_refused
from headway._spool import spool
from headway.errors import HeadwayError, UnavailableError, from_status, translated
from headway.target import Target, open_channel
from headway.v1 import job_service_pb2 as rpc
from headway.v1.job_service_pb2_grpc import JobServiceStub

ANSWER_TIMEOUT = 10.0
"""Seconds that the server has for each answer."""

_REPORTS, _BYTES = 1000, 1024 * 1024
"""How much of reports goes in one request; the server takes 1,000 of them, and 4 MiB."""

_ENDS = rpc.FinishJobRequest | rpc.FailJobRequest


class Outcome(enum.StrEnum):
    """What became of a letter."""

    SENT = "sent"
    REFUSED = "refused"
    WAITING = "waiting"


def save_undelivered(job_states: Iterable[JobState], target: Target) -> dict[JobState, str]:
    """Writes what these jobs have left to say. For each that has something left: where it is, or "" if it cannot be
    written. One notice says why, however many jobs there are. Belongs in the engine's thread."""
    left: dict[JobState, str] = {}
    fault: Exception | None = None
    for job_state in job_states:
        try:
            if job_state.over or not (requests := job_state.remains()):
                continue
            left[job_state] = ""
            if spool.folder() is not None:
                record = spool.SpoolRecord(target.address, target.tls, job_state.job.id, job_state.job.name, requests)
                job_state.spool_file = spool.write(record, job_state.spool_file)
                left[job_state] = str(job_state.spool_file.path)
        except Exception as error:
            fault = error
    if fault is not None:
        log.warning("headway: what is left to say cannot be written down: %s", fault)
    return left


def collect(target: Target) -> "SpoolSender | None":
    """Starts to send what waits for this server, if anything does."""
    return SpoolSender(target) if next(spool.spool_files(target), None) is not None else None


def catch_up(target: Target, job_id: str, timeout: float) -> None:
    """Sends what earlier processes left to say of this job, before it is another's turn; waits at most `timeout`
    seconds for that."""
    if next(spool.spool_files(target, job_id), None) is not None:
        SpoolSender(target, job_id).join(timeout)


class SpoolSender:
    """Goes once through the letters for one server, or of one job there, one after the other, in a thread and over a
    channel of its own. If the server does not answer, the rest stays for a later process."""

    def __init__(self, target: Target, job_id: str = "") -> None:
        self._target = target
        self._job_id = job_id
        self._channel = open_channel(target, retry=False)
        self._stopped = False
        self._thread = Thread(self._run, "headway-spool")

    def _run(self) -> None:
        try:
            for _, spool_file in spool.claims(self._target, self._job_id):
                if spool_file is not None and self._stopped:
                    spool_file.release()
                    return
                if spool_file is not None and deliver(spool_file, self._channel)[0] is Outcome.WAITING:
                    return
        except Exception:
            log.debug("headway: the spool is left for later", exc_info=True)
        finally:
            self._channel.close()

    def is_alive(self) -> bool:
        """Whether it is still at work."""
        return not self._thread.join(0.0)

    def join(self, timeout: float) -> None:
        """Waits until all is sent, at most `timeout` seconds."""
        self._thread.join(timeout)

    def stop(self) -> None:
        """Breaks off, and waits for that at most a second."""
        self._stopped = True
        self._channel.close()
        self.join(1.0)


def deliver(spool_file: spool.SpoolFile, channel: grpc.Channel, timeout: float = ANSWER_TIMEOUT) -> tuple[Outcome, str]:
    """Sends a letter and removes it, puts it aside if the server will never take it, or else leaves it where it is;
    and why, in words. The server has `timeout` seconds for each answer."""
    try:
        try:
            record = spool_file.read()
        except ValueError as error:
            return _refuse(spool_file, str(error))
        send(JobServiceStub(channel), record.requests, timeout)
    except HeadwayError as error:
        reason = in_words(error)
        final = judge(error) in (Decision.STOP, Decision.DROP)
        return _refuse(spool_file, reason) if final else (Outcome.WAITING, reason)
    except (OSError, ValueError) as error:
        # gRPC raises ValueError for a channel that was closed under its hands.
        return Outcome.WAITING, str(error)
    else:
        log.info("headway: what was left to say of job %s is delivered", record.job_id)
        spool_file.remove()
        return Outcome.SENT, ""
    finally:
        spool_file.release()


def _refuse(spool_file: spool.SpoolFile, reason: str) -> tuple[Outcome, str]:
    log.warning("headway: what was left to say of a job is refused, see %s: %s", spool_file.refuse(), reason)
    return Outcome.REFUSED, reason


def send(stub: JobServiceStub, requests: Sequence[spool.Request], timeout: float = ANSWER_TIMEOUT) -> None:
    """Makes these calls in order. HeadwayError if one fails that matters."""
    ended: HeadwayError | None = None
    for batch in _batches(requests):
        try:
            if len(batch) > 1:
                _stream(stub, batch, timeout)
            else:
                _call(stub, batch[0], timeout)
        except HeadwayError as error:
            # If the end did arrive, and only its answer did not, then so did all before it: its repeat tells.
            if isinstance(batch[0], _ENDS) or error.reason != "JOB_ENDED":
                raise
            ended = error
        else:
            ended = None if isinstance(batch[0], _ENDS) else ended
    if ended is not None:
        raise ended


def _batches(requests: Sequence[spool.Request]) -> Iterator[list[spool.Request]]:
    """Reports that stand together go together; what may have to be said twice goes alone."""
    batch, size = list[spool.Request](), 0
    for request in requests:
        # A stream needs threads of gRPC, which greenlets cannot stand in for.
        report = isinstance(request, rpc.ReportProgressRequest) and not request.HasField("variables")
        together = report and not has_greenlets()
        if batch and not (together and len(batch) < _REPORTS and size + request.ByteSize() < _BYTES):
            yield batch
            batch, size = [], 0
        batch.append(request)
        size += request.ByteSize() if together else _BYTES
    if batch:
        yield batch


def _stream(stub: JobServiceStub, reports: Sequence[spool.Request], timeout: float) -> None:
    """Makes one request, and one commit, of many reports."""
    request = rpc.StreamProgressRequest()
    request.reports.extend(report for report in reports if isinstance(report, rpc.ReportProgressRequest))
    failed, acked = list[HeadwayError](), 0
    with translated():
        for response in stub.StreamProgress(iter([request]), timeout=timeout):
            acked = response.acked
            failed += [from_status(failure.status) for failure in response.failures]
    if not acked:
        raise UnavailableError(grpc.StatusCode.UNAVAILABLE, "The reports were not acknowledged.")
    # What is refused is passed over whole: said again without what is at fault, as in `_call`, it would come after
    # reports of the same part that have a greater sequence. The gravest of the rest counts.
    failed = [error for error in failed if judge(error) is not Decision.DROP]
    if failed:
        raise min(failed, key=lambda error: error.reason == "JOB_ENDED")


def _call(stub: JobServiceStub, request: spool.Request, timeout: float) -> None:
    try:
        _call_once(stub, request, timeout)
    except HeadwayError as error:
        # As the engine does: what is refused of a job must not keep the rest of it back.
        if judge(error) is not Decision.DROP:
            raise
        if isinstance(request, rpc.ReportProgressRequest):
            if not remove_refused(request, error):
                return
        elif isinstance(request, rpc.FinishJobRequest) and request.HasField("results"):
            request.ClearField("results")
        elif isinstance(request, rpc.UpdateJobRequest):
            return
        else:
            raise
        _call(stub, request, timeout)


def _call_once(stub: JobServiceStub, request: spool.Request, timeout: float) -> None:
    with translated():
        if isinstance(request, rpc.ReportProgressRequest):
            stub.ReportProgress(request, timeout=timeout)
        else:
            method(stub, request)(request, timeout=timeout)
