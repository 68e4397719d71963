"""Checks of single values of a request. They collect: a caller is told all faults of a request at once."""

import re
from collections.abc import Mapping

from google.protobuf import duration_pb2

from headway_server.domain.errors import FAULTS_SHOWN, Fault, InvalidRequest
from headway_server.domain.limits import DURATION_MAX, INT64_MAX, MICROSECONDS, Limits

JOB_ID_LENGTH = 32
HEXADECIMAL = "0123456789abcdef"

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def session_fault(session_id: str, limits: Limits) -> str | None:
    """What is wrong with a session id, or None."""
    if not session_id:
        return "is missing; send the session's id"
    # A character takes at least one byte: what is much too long is not encoded.
    if len(session_id) > limits.session_id_bytes or len(session_id.encode()) > limits.session_id_bytes:
        return f"must be at most {limits.session_id_bytes} bytes"
    if CONTROL.search(session_id):
        return "must not contain control characters"
    return None


class Checks:
    """The faults found so far in one request."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.faults: list[Fault] = []

    def fault(self, field: str, description: str) -> None:
        self.faults.append(Fault(field, description))

    def done(self) -> None:
        """Raise InvalidRequest if there was a fault."""
        if self.faults:
            raise InvalidRequest(*self.faults)

    def job_id(self, job_id: str, field: str = "job_id") -> None:
        # Faster than a regular expression.
        if len(job_id) != JOB_ID_LENGTH or job_id.strip(HEXADECIMAL):
            self.fault(field, "must be 32 lower-case hexadecimal digits")

    @property
    def are_many(self) -> bool:
        """Whether there are more faults already than an answer names: look no further."""
        return len(self.faults) > FAULTS_SHOWN

    def text(self, field: str, value: str, length: int, index: int | None = None, *, required: bool = False) -> str:
        """`index` belongs into the brackets of the field's name."""
        if len(value) > length:
            description = f"must be at most {length} characters, not {len(value)}"
        elif required and not value:
            description = "must not be empty"
        elif "\0" in value:
            description = "must not contain U+0000"
        else:
            return value
        # Written out for a fault alone: there can be a million of them.
        self.fault(field if index is None else field.replace("[]", f"[{index}]"), description)
        return value

    def not_negative(self, field: str, value: int) -> int:
        if value < 0:
            self.fault(field, "must not be negative")
        return value

    def span(self, field: str, value: duration_pb2.Duration, *, capped: bool = False) -> int:
        """Microseconds; less than one counts as one, so that it is not taken for 0. `capped`: no span is too long."""
        if not 0 <= value.nanos < 1_000_000_000 or value.seconds < 0:
            self.fault(field, "must be a duration of 0 or more, with nanos from 0 to 999,999,999")
            return 0
        length = value.seconds * MICROSECONDS - -value.nanos // 1000
        if length > DURATION_MAX and not capped:
            self.fault(field, "must be at most 3650 days")
        return length

    def labels(self, labels: Mapping[str, str], field: str = "labels") -> dict[str, str]:
        if len(labels) > self.limits.labels:
            self.fault(field, f"must be at most {self.limits.labels}, not {len(labels)}")
            return {}
        for key, value in labels.items():
            self.text(field, key, self.limits.label_key_length, required=True)
            self.text(f"{field}[{key}]", value, self.limits.label_value_length)
        return dict(labels)

    def counters(self, counters: Mapping[str, int]) -> dict[str, int]:
        if len(counters) > self.limits.counters:
            self.fault("counters", f"must be at most {self.limits.counters}, not {len(counters)}")
            return {}
        for name, delta in counters.items():
            self.text("counters", name, self.limits.part_length, required=True)
            if not delta >= -INT64_MAX:
                self.fault(f"counters[{name}]", "must be greater than -2^63")
        return dict(counters)

    def count(self, field: str, number: int, limit: int) -> bool:
        """Whether so many are allowed."""
        if number > limit:
            self.fault(field, f"must be at most {limit}, not {number}")
        return number <= limit
