"""The reasons of refusals: the proto, the exceptions and the codes say the same."""

import re
from pathlib import Path
from urllib.parse import quote

import pytest
from google.rpc import code_pb2

from headway.v1 import error_reason_pb2
from headway_server.domain import errors
from headway_server.domain.errors import Fault, InvalidRequest, JobError
from headway_server.rpc.to_proto import CODES, fault, status
from tests.support.refusals import from_status

PROTO = Path(__file__).parents[2] / "protos" / "headway" / "v1" / "error_reason.proto"

NEVER_ANSWERED = {
    "ERROR_REASON_UNSPECIFIED": "never sent",
    "ABANDONED": "in Job.error",
    "CANCELLED_BY_SERVER": "in Job.error",
    "CONTINUED": "in Job.error",
}
"""Reasons that no RPC is refused with, and why there is neither an exception nor a code."""

NO_EXCEPTION = {"SERVER_FAULT": "not foreseen: any exception that is none of ours"}

RETRY_INFO = {reason for reason, code in CODES.items() if code == code_pb2.RESOURCE_EXHAUSTED} - {"MESSAGE_TOO_LARGE"}
"""A message that is too large stays so."""


def documented() -> dict[str, str]:
    """The comment of each reason in the proto."""
    found = re.findall(r"((?:^ *//.*\n)+) *(\w+) = \d+;", PROTO.read_text(), re.MULTILINE)
    return {name: " ".join(line.strip(" /") for line in comment.splitlines()) for comment, name in found}


def kinds(base: type[JobError] = JobError) -> list[type[JobError]]:
    return [kind for child in base.__subclasses__() for kind in (child, *kinds(child))]


REASONS = {kind.reason: kind for kind in kinds()}


def make(kind: type[JobError]) -> JobError:
    return InvalidRequest(Fault("job_id", "must be given")) if kind is InvalidRequest else kind()


def test_every_reason_is_documented() -> None:
    assert documented().keys() == set(error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name)


def test_every_reason_has_one_exception_or_a_reason_why_not() -> None:
    assert len(REASONS) == len(kinds()), "two exceptions with one reason"
    assert REASONS.keys() | NEVER_ANSWERED.keys() | NO_EXCEPTION.keys() == documented().keys()
    assert not REASONS.keys() & (NEVER_ANSWERED.keys() | NO_EXCEPTION.keys())
    assert {kind.__module__ for kind in kinds()} == {errors.__name__}


def test_every_reason_that_is_answered_has_a_code() -> None:
    assert CODES.keys() == documented().keys() - NEVER_ANSWERED.keys()


@pytest.mark.parametrize("reason", sorted(CODES))
def test_the_code_is_the_documented_one(reason: str) -> None:
    """The proto's comment begins with it, and says whether RetryInfo comes along."""
    comment = documented()[reason]
    assert comment.split(".")[0].split(",")[0] == code_pb2.Code.Name(CODES[reason])
    assert ("RetryInfo" in comment) == (reason in RETRY_INFO)


@pytest.mark.parametrize("reason", sorted(NEVER_ANSWERED))
def test_what_is_never_answered_says_where_it_stands(reason: str) -> None:
    assert documented()[reason].lower().startswith(NEVER_ANSWERED[reason].lower())


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_refusal_is_whole(reason: str) -> None:
    """One ErrorInfo, a sentence that says what to do, BadRequest and RetryInfo where they belong, and no insides."""
    refusal = from_status(status(make(REASONS[reason])))
    assert refusal.reason == reason
    assert (refusal.retry_after is not None) == (reason in RETRY_INFO)
    assert bool(refusal.fields) == (reason == "INVALID_REQUEST")
    assert len(refusal.message) > 10 or reason == "INVALID_REQUEST"


def test_a_fault_of_the_servers_own_tells_its_number_and_nothing_else() -> None:
    told = fault("0123")
    assert told.code == code_pb2.INTERNAL
    assert "0123" in told.message
    assert len(told.details) == 1


def test_there_is_room_for_every_refusal() -> None:
    """However many faults, and however long what is at fault: the metadata of gRPC calls holds about 8 KiB."""
    many = InvalidRequest(
        *(Fault(f"labels[{'😀' * 5000}{n}]", "must be at most 256 characters, not 5000") for n in range(1000))
    )
    answer = status(many)
    # The message is percent-encoded on the wire, the details (which repeat it) are in base64.
    assert len(quote(answer.message)) + len(answer.SerializeToString()) * 4 / 3 < 8000
    assert from_status(answer).fields
