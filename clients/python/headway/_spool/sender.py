"""Saves undelivered data of this process in the spool, and sends what earlier processes saved."""

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
"""Seconds to wait for each answer of the server."""

_REPORTS, _BYTES = 1000, 1024 * 1024
"""The largest batch of reports in one request. The server takes 1,000 reports, and 4 MiB."""

_ENDS = rpc.FinishJobRequest | rpc.FailJobRequest


class Outcome(enum.StrEnum):
    """The outcome for a spool file."""

    SENT = "sent"
    REFUSED = "refused"
    WAITING = "waiting"


def save_undelivered(job_states: Iterable[JobState], target: Target) -> dict[JobState, str]:
    """Saves the undelivered data of these jobs. Returns the path for each job with undelivered data, or "" if it cannot
    be written. One warning says why, for all jobs together. Call it in the engine's thread."""
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
        log.warning("headway: undelivered reports cannot be saved on disk: %s", fault)
    return left


def collect(target: Target) -> "SpoolSender | None":
    """Starts to send the spool files for this server, if there are any."""
    return SpoolSender(target) if next(spool.spool_files(target), None) is not None else None


def catch_up(target: Target, job_id: str, timeout: float) -> None:
    """Sends the spool files of earlier processes for this job, before another worker begins. Waits at most `timeout`
    seconds for that."""
    if next(spool.spool_files(target, job_id), None) is not None:
        SpoolSender(target, job_id).join(timeout)


class SpoolSender:
    """Sends the spool files for one server, or of one job there, one after the other. It has a thread and a channel of
    its own. If the server does not answer, the rest stays for a later process."""

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
            log.debug("headway: sending the spool failed; a later process tries again", exc_info=True)
        finally:
            self._channel.close()

    def is_alive(self) -> bool:
        """Whether it is still sending."""
        return not self._thread.join(0.0)

    def join(self, timeout: float) -> None:
        """Waits until all is sent, at most `timeout` seconds."""
        self._thread.join(timeout)

    def stop(self) -> None:
        """Stops sending, and waits at most a second for that."""
        self._stopped = True
        self._channel.close()
        self.join(1.0)


def deliver(spool_file: spool.SpoolFile, channel: grpc.Channel, timeout: float = ANSWER_TIMEOUT) -> tuple[Outcome, str]:
    """Sends a spool file and removes it. Renames it to .refused if the server will never take it, else leaves it.
    Returns the outcome and its reason. Waits at most `timeout` seconds for each answer."""
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
        # gRPC raises ValueError if the channel was closed meanwhile.
        return Outcome.WAITING, str(error)
    else:
        log.info("headway: the saved reports of job %s are delivered", record.job_id)
        spool_file.remove()
        return Outcome.SENT, ""
    finally:
        spool_file.release()


def _refuse(spool_file: spool.SpoolFile, reason: str) -> tuple[Outcome, str]:
    log.warning("headway: the saved reports of a job were refused and are in %s: %s", spool_file.refuse(), reason)
    return Outcome.REFUSED, reason


def send(stub: JobServiceStub, requests: Sequence[spool.Request], timeout: float = ANSWER_TIMEOUT) -> None:
    """Makes these calls in order. HeadwayError if an important one fails."""
    ended: HeadwayError | None = None
    for batch in _batches(requests):
        try:
            if len(batch) > 1:
                _stream(stub, batch, timeout)
            else:
                _call(stub, batch[0], timeout)
        except HeadwayError as error:
            # The end may have arrived without its answer. Then all before it has arrived too, and repeating the end
            # shows that.
            if isinstance(batch[0], _ENDS) or error.reason != "JOB_ENDED":
                raise
            ended = error
        else:
            ended = None if isinstance(batch[0], _ENDS) else ended
    if ended is not None:
        raise ended


def _batches(requests: Sequence[spool.Request]) -> Iterator[list[spool.Request]]:
    """Puts adjacent reports into one batch. Requests that may have to be repeated are sent alone."""
    batch, size = list[spool.Request](), 0
    for request in requests:
        # A stream needs threads of gRPC, and greenlets cannot replace them.
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
    """Sends many reports as one request, which is one commit."""
    request = rpc.StreamProgressRequest()
    request.reports.extend(report for report in reports if isinstance(report, rpc.ReportProgressRequest))
    failed, acked = list[HeadwayError](), 0
    with translated():
        for response in stub.StreamProgress(iter([request]), timeout=timeout):
            acked = response.acked
            failed += [from_status(failure.status) for failure in response.failures]
    if not acked:
        raise UnavailableError(grpc.StatusCode.UNAVAILABLE, "The reports were not acknowledged.")
    # A refused report is skipped as a whole. If it were repeated without the refused fields, as in `_call`, it would
    # come after reports of the same part with a greater sequence. The most serious of the other errors counts.
    failed = [error for error in failed if judge(error) is not Decision.DROP]
    if failed:
        raise min(failed, key=lambda error: error.reason == "JOB_ENDED")


def _call(stub: JobServiceStub, request: spool.Request, timeout: float) -> None:
    try:
        _call_once(stub, request, timeout)
    except HeadwayError as error:
        # As in the engine, a refused request must not block the rest of the job.
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
