"""The status of a job."""

import enum
from typing import Self

from headway.v1 import job_pb2


class Status(enum.StrEnum):
    """The status of a job. job.proto has a diagram.

    It equals its name, "RUNNING", and its number in the protocol, so that it can be compared with the statuses of
    `Client.list` and `Client.get`. `Status(job.status)` gives it for a number, and `Status("RUNNING")` for its name.
    """

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    LOST = "LOST"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    def __new__(cls, value: str | int) -> Self:
        member = str.__new__(cls, value)
        member._value_ = str(value)
        return member

    @property
    def number(self) -> int:
        """Its number in the protocol."""
        return job_pb2.JobStatus.Value(f"JOB_STATUS_{self}")

    @classmethod
    def _missing_(cls, value: object) -> "Status | None":
        return next((status for status in cls if value in (status.number, f"JOB_STATUS_{status}")), None)

    def __eq__(self, other: object) -> bool:
        return self.number == other if isinstance(other, int) else super().__eq__(other)

    # A set of statuses also finds texts, but not numbers.
    __hash__ = str.__hash__
