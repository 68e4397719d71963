"""Leaves in the spool what this process could not deliver, and sends what earlier ones left."""

import enum
from collections.abc import Iterable, Iterator, Sequence

import grpc

from headway._engine.calls import method
from headway._engine.connection_state import in_words, log
from headway._engine.error_policy import Verdict, judge
from headway._engine.job_state import Course
from headway._engine.native_threads import Thread, has_greenlets
from headway._engine.reporter import lighten
from headway._spool import spool
from headway.errors import HeadwayError, UnavailableError, from_status, translated
from headway.target import Target, open_channel
from headway.v1 import job_service_pb2 as rpc
from headway.v1.job_service_pb2_grpc import JobServiceStub

PATIENCE = 10.0
"""Seconds that the server has for each answer."""

_REPORTS, _BYTES = 1000, 1024 * 1024
"""How much of reports goes in one request; the server takes 1,000 of them, and 4 MiB."""

_ENDS = rpc.FinishJobRequest | rpc.FailJobRequest


class Outcome(enum.StrEnum):
    """What became of a letter."""

    SENT = "sent"
    REFUSED = "refused"
    WAITING = "waiting"


def write_down(courses: Iterable[Course], target: Target) -> dict[Course, str]:
    """Writes what these jobs have left to say. For each that has something left: where it is, or "" if it cannot be
    written. One notice says why, however many jobs there are. Belongs in the engine's thread."""
    left: dict[Course, str] = {}
    fault: Exception | None = None
    for course in courses:
        try:
            if course.over or not (requests := course.remains()):
                continue
            left[course] = ""
            if spool.folder() is not None:
                words = spool.Words(target.address, target.tls, course.job.id, course.job.name, requests)
                course.letter = spool.write(words, course.letter)
                left[course] = str(course.letter.path)
        except Exception as error:
            fault = error
    if fault is not None:
        log.warning("headway: what is left to say cannot be written down: %s", fault)
    return left


def collect(target: Target) -> "Postman | None":
    """Starts to send what waits for this server, if anything does."""
    return Postman(target) if next(spool.letters(target), None) is not None else None


def catch_up(target: Target, job_id: str, patience: float) -> None:
    """Sends what earlier processes left to say of this job, before it is another's turn; waits at most `patience`
    seconds for that."""
    if next(spool.letters(target, job_id), None) is not None:
        Postman(target, job_id).join(patience)


class Postman:
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
            for _, letter in spool.claims(self._target, self._job_id):
                if letter is not None and self._stopped:
                    letter.release()
                    return
                if letter is not None and deliver(letter, self._channel)[0] is Outcome.WAITING:
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


def deliver(letter: spool.Letter, channel: grpc.Channel, patience: float = PATIENCE) -> tuple[Outcome, str]:
    """Sends a letter and removes it, puts it aside if the server will never take it, or else leaves it where it is;
    and why, in words. The server has `patience` seconds for each answer."""
    try:
        try:
            words = letter.read()
        except ValueError as error:
            return _refuse(letter, str(error))
        send(JobServiceStub(channel), words.requests, patience)
    except HeadwayError as error:
        reason = in_words(error)
        final = judge(error) in (Verdict.GONE, Verdict.REFUSED)
        return _refuse(letter, reason) if final else (Outcome.WAITING, reason)
    except (OSError, ValueError) as error:
        # gRPC raises ValueError for a channel that was closed under its hands.
        return Outcome.WAITING, str(error)
    else:
        log.info("headway: what was left to say of job %s is delivered", words.job_id)
        letter.remove()
        return Outcome.SENT, ""
    finally:
        letter.release()


def _refuse(letter: spool.Letter, reason: str) -> tuple[Outcome, str]:
    log.warning("headway: what was left to say of a job is refused, see %s: %s", letter.refuse(), reason)
    return Outcome.REFUSED, reason


def send(stub: JobServiceStub, requests: Sequence[spool.Request], patience: float = PATIENCE) -> None:
    """Makes these calls in order. HeadwayError if one fails that matters."""
    ended: HeadwayError | None = None
    for batch in _batches(requests):
        try:
            if len(batch) > 1:
                _stream(stub, batch, patience)
            else:
                _call(stub, batch[0], patience)
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


def _stream(stub: JobServiceStub, reports: Sequence[spool.Request], patience: float) -> None:
    """Makes one request, and one commit, of many reports."""
    request = rpc.StreamProgressRequest()
    request.reports.extend(report for report in reports if isinstance(report, rpc.ReportProgressRequest))
    failed, acked = list[HeadwayError](), 0
    with translated():
        for response in stub.StreamProgress(iter([request]), timeout=patience):
            acked = response.acked
            failed += [from_status(failure.status) for failure in response.failures]
    if not acked:
        raise UnavailableError(grpc.StatusCode.UNAVAILABLE, "The reports were not acknowledged.")
    # What is refused is passed over whole: said again without what is at fault, as in `_call`, it would come after
    # reports of the same part that have a greater sequence. The gravest of the rest counts.
    failed = [error for error in failed if judge(error) is not Verdict.REFUSED]
    if failed:
        raise min(failed, key=lambda error: error.reason == "JOB_ENDED")


def _call(stub: JobServiceStub, request: spool.Request, patience: float) -> None:
    try:
        _call_once(stub, request, patience)
    except HeadwayError as error:
        # As the engine does: what is refused of a job must not keep the rest of it back.
        if judge(error) is not Verdict.REFUSED:
            raise
        if isinstance(request, rpc.ReportProgressRequest):
            if not lighten(request, error):
                return
        elif isinstance(request, rpc.FinishJobRequest) and request.HasField("results"):
            request.ClearField("results")
        elif isinstance(request, rpc.UpdateJobRequest):
            return
        else:
            raise
        _call(stub, request, patience)


def _call_once(stub: JobServiceStub, request: spool.Request, patience: float) -> None:
    with translated():
        if isinstance(request, rpc.ReportProgressRequest):
            stub.ReportProgress(request, timeout=patience)
        else:
            method(stub, request)(request, timeout=patience)
