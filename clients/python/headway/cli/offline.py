"""`--keep`: what a script says while its server is away is kept in the spool: the script neither fails nor waits.

What is kept goes before all that is said later of the same job: each command delivers it first, or is kept behind it.
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
from headway._engine.connection_state import in_words
from headway._engine.error_policy import Verdict, judge, keeps_out, too_large
from headway._spool import spool
from headway._spool.sender import Outcome, deliver
from headway.cli.escaping import notice
from headway.errors import from_rpc_error
from headway.target import Target
from headway.v1 import job_service_pb2 as pb
from headway.values import clean

PATIENCE = 1.0
"""Seconds that the server has for each answer, and another command for its turn."""
PAUSE = 1.0
"""Seconds after a question without an answer in which further ones are not asked, three more for each that it took."""
LETTER = 1024 * 1024
"""Bytes beyond which a letter is followed by another: each addition writes all of it anew."""

_LONGEST_PAUSE = 5.0
_DIGITS = 19
"""Of the largest number of 64 bits."""

Answer = TypeVar("Answer")
Kept: TypeAlias = (
    pb.CreateJobRequest | pb.UpdateJobRequest | pb.ReportProgressRequest | pb.FinishJobRequest | pb.FailJobRequest
)


class Keeper:
    """Says what a command has to say, or keeps it."""

    def __init__(self, target: Target, channel: grpc.Channel, timeout: float | None) -> None:
        """`timeout`: seconds that the server has for an answer, if the command line says so."""
        self._target = target
        self._channel = channel
        self._patience = PATIENCE if timeout is None else timeout

    def tell(self, call: Callable[[float], Answer], request: Kept) -> Answer | None:
        """The server's answer to `call`, which gets the seconds that it may take; None if it is away, and `request`
        kept. Raises RpcError or HeadwayError if the server refuses it, or never would take it."""
        if request.ByteSize() > MESSAGE_BYTES:
            raise too_large()
        job_id = request.job.id if isinstance(request, pb.UpdateJobRequest) else request.job_id
        with _turn(job_id):
            _tidy(request)
            letters, why = self._claim(job_id)
            try:
                asked = time.time()
                ends = isinstance(request, pb.FinishJobRequest | pb.FailJobRequest)
                if not why and (ends or not _asked_lately(letters)):
                    why = self._deliver(letters)
                    if not why:
                        try:
                            return call(self._patience)
                        except grpc.RpcError as error:
                            why = self._away(error)
                again = time.time() + min(3 * (time.time() - asked), _LONGEST_PAUSE - PAUSE) if why else None
                self._keep(job_id, request, letters, why, again)
            finally:
                for letter in letters:
                    letter.release()
        return None

    def _claim(self, job_id: str) -> tuple[list[spool.Letter], str]:
        """All that is kept of the job, in hand; or none and why, if another process does not let go of it."""
        held = list[spool.Letter]()
        end = time.monotonic() + self._patience
        for path in spool.letters(self._target, job_id):
            while (letter := spool.Letter.claim(path)) is None and path.exists():
                if time.monotonic() > end:
                    for one in held:
                        one.release()
                    return [], "another process has in hand what was said before"
                time.sleep(0.01)
            held += [letter] if letter else []
        return held, ""

    def _deliver(self, letters: list[spool.Letter]) -> str:
        """Sends them in order, and takes those away that are sent; why not all are."""
        while letters:
            if deliver(letters[0], self._channel, self._patience)[0] is Outcome.WAITING:
                # It was let go of.
                again = spool.Letter.claim(letters[0].path)
                letters[:1] = [again] if again else []
                return f"{self._target.address} does not answer"
            del letters[0]
        return ""

    def _keep(self, job_id: str, request: Kept, letters: Sequence[spool.Letter], why: str, again: float | None) -> None:
        try:
            before, words = _room(letters, job_id, request)
            if words is None:
                words = spool.Words(self._target.address, self._target.tls, job_id, "", [])
                words = replace(words, name=request.name) if isinstance(request, pb.CreateJobRequest) else words
            if again is None and before is not None:
                again = before.path.stat().st_mtime
            letter = spool.write(replace(words, requests=[*words.requests, request]), before)
            with suppress(OSError):
                # When the server was last asked.
                os.utime(letter.path, (again or time.time(),) * 2)
            letter.release()
        except OSError as error:
            notice(f"{why}; what is said is lost, for it cannot be kept: {error}")
            return
        ends = isinstance(request, pb.FinishJobRequest | pb.FailJobRequest)
        if why and (before is None or ends):
            # Once for each time that the server is away, and for the end.
            notice(f"{why}; what is said is kept, and sent later")

    def _away(self, error: grpc.RpcError) -> str:
        """Why there is no answer; raises the error if it is one."""
        fault = from_rpc_error(error)
        away = judge(fault) in (Verdict.AWAY, Verdict.LATER) and not keeps_out(fault)
        if not away or fault.reason in ("MALFORMED_MESSAGE", "MESSAGE_TOO_LARGE"):
            raise error
        plain = not fault.reason and fault.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        return f"{self._target.address} does not answer{'' if plain else f' ({in_words(fault)})'}"


def catch_up(target: Target, channel: grpc.Channel, job_ids: Iterable[str], patience: float) -> None:
    """Delivers what is kept of these jobs, if their server answers within `patience` seconds."""
    for job_id in job_ids:
        for _, letter in spool.claims(target, job_id):
            if letter is None or deliver(letter, channel, patience)[0] is Outcome.WAITING:
                break


@contextmanager
def _turn(job_id: str) -> Iterator[None]:
    """The commands of a job wait for each other, though not for long: a report that overtook another of its part would
    have the greater sequence, and the other would not count."""
    handle = None
    # Without a spool, nothing is kept and no sequence given.
    with suppress(OSError):
        handle = os.open(spool.ready() / "turns", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + 2 * PATIENCE
        while time.monotonic() < end:
            try:
                # One file will do: each job has a byte of it, whether it is that long or not.
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, zlib.crc32(job_id.encode()))
                break
            except (BlockingIOError, PermissionError):
                time.sleep(0.005)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _tidy(request: Kept) -> None:
    """What is kept is refused only when nobody is there to see it. So texts are cut, as all clients cut them, and what
    is said twice counts once."""
    match request:
        case pb.ReportProgressRequest():
            if request.HasField("message"):
                request.message = clean(request.message, 1024)
            for error in request.record_errors:
                error.record, error.code = clean(error.record, 256), clean(error.code, 64)
                error.message = clean(error.message, 1024)
            # `headway run` numbers the reports of its job itself; one of a greater number would hide those that follow.
            of_run = request.job_id == os.environ.get("HEADWAY_JOB")
            if not request.sequence and not of_run:
                request.sequence = _next_sequence()
        case pb.FailJobRequest():
            request.error.message = clean(request.error.message, 1024)


def _next_sequence() -> int:
    """Greater than all that this function gave before to commands with this spool, and than those of workers that began
    before, where the clock is right: the clock may be set back, so the last number is written down. 0 without a spool.
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


def _asked_lately(letters: Sequence[spool.Letter]) -> bool:
    if not letters:
        return False
    try:
        age = time.time() - letters[-1].path.stat().st_mtime
    except OSError:
        return False
    return PAUSE - _LONGEST_PAUSE <= age < PAUSE


def _room(
    letters: Sequence[spool.Letter], job_id: str, request: Kept
) -> tuple[spool.Letter | None, spool.Words | None]:
    """The letter to which the request can be added, and what it says; None if it must be another."""
    if letters:
        with suppress(OSError, ValueError):
            words = letters[-1].read()
            if words.job_id == job_id and letters[-1].path.stat().st_size + 2 * request.ByteSize() < LETTER:
                return letters[-1], words
    return None, None
