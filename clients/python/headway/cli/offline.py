"""`--offline`: if the server does not answer, calls of a script are saved in the spool. The script neither fails nor
waits.

Saved calls come before later calls of the same job: each command delivers them first, or is saved behind them.
"""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TypeAlias, TypeVar

import grpc

from headway._engine.batch import MESSAGE_BYTES
from headway._engine.calls import job_id_of
from headway._engine.connection_state import in_words
from headway._engine.error_policy import Decision, is_unauthorized, judge, too_large
from headway._spool import spool
from headway._spool.sender import Outcome, deliver
from headway.cli.escaping import warn
from headway.errors import from_rpc_error
from headway.target import Target
from headway.v1 import job_service_pb2 as pb
from headway.values import clean

ANSWER_TIMEOUT = 1.0
"""Seconds to wait for each answer of the server, and for another command that holds the spool files of the job."""
RETRY_PAUSE = 1.0
"""Seconds after an unanswered call in which the server is not asked again, plus three for each second of that call."""
MAX_FILE_BYTES = 1024 * 1024
"""Bytes of a spool file from which on a new one begins: each addition rewrites the whole file."""

_LONGEST_PAUSE = 5.0
_DIGITS = 19
"""Digits of the largest number of 64 bits."""

Answer = TypeVar("Answer")
SpoolableRequest: TypeAlias = (
    pb.CreateJobRequest | pb.UpdateJobRequest | pb.ReportProgressRequest | pb.FinishJobRequest | pb.FailJobRequest
)


class OfflineCalls:
    """Makes the calls of a command, or saves them in the spool."""

    def __init__(self, target: Target, channel: grpc.Channel, timeout: float | None) -> None:
        """`timeout`: seconds to wait for an answer, if the command line sets it."""
        self._target = target
        self._channel = channel
        self._answer_timeout = ANSWER_TIMEOUT if timeout is None else timeout

    def send(self, call: Callable[[float], Answer], request: SpoolableRequest) -> Answer | None:
        """The server's answer to `call`, which gets its timeout in seconds. None if the server does not answer and
        `request` is saved. Raises RpcError or HeadwayError if the server refuses the request, or would never take
        it."""
        if request.ByteSize() > MESSAGE_BYTES:
            raise too_large()
        job_id = job_id_of(request)
        with _job_lock(job_id):
            _normalize(request)
            spool_files, why = self._claim(job_id)
            try:
                asked = time.time()
                ends = isinstance(request, pb.FinishJobRequest | pb.FailJobRequest)
                if not why and (ends or not _was_asked_lately(spool_files)):
                    why = self._deliver(spool_files)
                    if not why:
                        try:
                            return call(self._answer_timeout)
                        except grpc.RpcError as error:
                            why = self._unreachable_reason(error)
                again = time.time() + min(3 * (time.time() - asked), _LONGEST_PAUSE - RETRY_PAUSE) if why else None
                self._spool(job_id, request, spool_files, why, again)
            finally:
                for spool_file in spool_files:
                    spool_file.release()
        return None

    def _claim(self, job_id: str) -> tuple[list[spool.SpoolFile], str]:
        """All spool files of the job, locked. Or none and the reason, if another process keeps one locked."""
        held = list[spool.SpoolFile]()
        end = time.monotonic() + self._answer_timeout
        for path in spool.spool_files(self._target, job_id):
            while (spool_file := spool.SpoolFile.claim(path)) is None and path.exists():
                if time.monotonic() > end:
                    for one in held:
                        one.release()
                    return [], "another process holds the earlier calls"
                time.sleep(0.01)
            held += [spool_file] if spool_file else []
        return held, ""

    def _deliver(self, spool_files: list[spool.SpoolFile]) -> str:
        """Sends the files in order and removes the sent ones from the list. Returns why some are left, or ""."""
        while spool_files:
            if deliver(spool_files[0], self._channel, self._answer_timeout)[0] is Outcome.WAITING:
                # `deliver` has unlocked it.
                again = spool.SpoolFile.claim(spool_files[0].path)
                spool_files[:1] = [again] if again else []
                return f"{self._target.address} does not answer"
            del spool_files[0]
        return ""

    def _spool(
        self,
        job_id: str,
        request: SpoolableRequest,
        spool_files: Sequence[spool.SpoolFile],
        why: str,
        again: float | None,
    ) -> None:
        try:
            before, record = _file_with_room(spool_files, job_id, request)
            if record is None:
                record = spool.SpoolRecord(self._target.address, self._target.tls, job_id, "", [])
                record = replace(record, name=request.name) if isinstance(request, pb.CreateJobRequest) else record
            if again is None and before is not None:
                again = before.path.stat().st_mtime
            spool_file = spool.write(replace(record, requests=[*record.requests, request]), before)
            with suppress(OSError):
                # The modification time stores when the server was last asked.
                os.utime(spool_file.path, (again or time.time(),) * 2)
            spool_file.release()
        except OSError as error:
            warn(f"{why}; the call is lost, because it cannot be saved: {error}")
            return
        ends = isinstance(request, pb.FinishJobRequest | pb.FailJobRequest)
        if why and (before is None or ends):
            # Print it once for each outage, and for the end.
            warn(f"{why}; the call is saved and sent later")

    def _unreachable_reason(self, error: grpc.RpcError) -> str:
        """Why the server counts as unreachable. Raises the error if it is an answer."""
        fault = from_rpc_error(error)
        unreachable = judge(fault) in (Decision.RECONNECT, Decision.RETRY) and not is_unauthorized(fault)
        if not unreachable or fault.reason in ("MALFORMED_MESSAGE", "MESSAGE_TOO_LARGE"):
            raise error
        plain = not fault.reason and fault.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        return f"{self._target.address} does not answer{'' if plain else f' ({in_words(fault)})'}"


def catch_up(target: Target, channel: grpc.Channel, job_ids: Iterable[str], timeout: float) -> None:
    """Delivers the spool files of these jobs, if the server answers within `timeout` seconds."""
    for job_id in job_ids:
        for _, spool_file in spool.claims(target, job_id):
            if spool_file is None or deliver(spool_file, channel, timeout)[0] is Outcome.WAITING:
                break


@contextmanager
def _job_lock(job_id: str) -> Iterator[None]:
    """Commands of one job wait for each other, but not for long. If a report overtook another of its part, it would
    have the greater sequence, and the other would not count."""
    handle = None
    # Without a spool, nothing is saved and reports get no sequence.
    with suppress(OSError):
        handle = os.open(spool.ready() / "turns", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + 2 * ANSWER_TIMEOUT
        while time.monotonic() < end:
            try:
                # One file is enough: each job locks one byte of it, whether the file is that long or not.
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, zlib.crc32(job_id.encode()))
                break
            except (BlockingIOError, PermissionError):
                time.sleep(0.005)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _normalize(request: SpoolableRequest) -> None:
    """Nobody sees a later refusal of a saved call. So texts are cut, as all clients cut them, and a sequence makes a
    repeated report count once."""
    match request:
        case pb.ReportProgressRequest():
            if request.HasField("message"):
                request.message = clean(request.message, 1024)
            for error in request.record_errors:
                error.record, error.code = clean(error.record, 256), clean(error.code, 64)
                error.message = clean(error.message, 1024)
            # `headway run` numbers the reports of its job itself. A greater number here would hide its later reports.
            of_run = request.job_id == os.environ.get("HEADWAY_JOB")
            if not request.sequence and not of_run:
                request.sequence = _next_sequence()
        case pb.FailJobRequest():
            request.error.message = clean(request.error.message, 1024)


def _next_sequence() -> int:
    """A number greater than all earlier numbers of commands with this spool, and, if the clock is right, than those of
    workers that began before. The clock may be set back, so the last number is stored. 0 without a spool.
    """
    try:
        handle = os.open(spool.ready() / "sequence", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return 0
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        said = os.pread(handle, _DIGITS, 0)
        last = int(said) if said.isdigit() else 0
        number = max(last + 1, time.time_ns() // 1000)
        os.pwrite(handle, b"%0*d" % (_DIGITS, number), 0)
    except OSError:
        return 0
    finally:
        os.close(handle)
    return number


def _was_asked_lately(spool_files: Sequence[spool.SpoolFile]) -> bool:
    if not spool_files:
        return False
    try:
        age = time.time() - spool_files[-1].path.stat().st_mtime
    except OSError:
        return False
    return RETRY_PAUSE - _LONGEST_PAUSE <= age < RETRY_PAUSE


def _file_with_room(
    spool_files: Sequence[spool.SpoolFile], job_id: str, request: SpoolableRequest
) -> tuple[spool.SpoolFile | None, spool.SpoolRecord | None]:
    """The spool file to which the request can be added, and its record. None if a new file is needed."""
    if spool_files:
        with suppress(OSError, ValueError):
            record = spool_files[-1].read()
            if (
                record.job_id == job_id
                and spool_files[-1].path.stat().st_size + 2 * request.ByteSize() < MAX_FILE_BYTES
            ):
                return spool_files[-1], record
    return None, None
