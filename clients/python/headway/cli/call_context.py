"""How commands call the server and show its replies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.message import Message

from headway.cli import formatting
from headway.cli.escaping import warn
from headway.cli.offline import OfflineCalls, SpoolableRequest
from headway.target import Target
from headway.v1 import job_pb2
from headway.v1.job_service_pb2_grpc import JobServiceStub

CALL_TIMEOUT = 10.0
"""Seconds."""
LONGEST_TIMEOUT = 30 * 86400.0
"""Seconds. gRPC treats much longer timeouts as no timeout."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Caller:
    """The server, and the settings that all calls share."""

    target: Target
    address: str
    """The target's, for people."""
    stub: JobServiceStub
    session: str
    timeout: float | None
    """Seconds, or None if the command line does not say."""
    json: bool
    offline_calls: OfflineCalls | None = None
    """Saves calls if the server does not answer; None without offline mode."""

    @property
    def call_timeout(self) -> float:
        return CALL_TIMEOUT if self.timeout is None else min(self.timeout, LONGEST_TIMEOUT)

    def send(self, call: Callable[[float], Answer], request: SpoolableRequest) -> Answer | None:
        """The answer to `call`, which gets its timeout in seconds. None if `request` is saved in the spool instead."""
        return self.offline_calls.send(call, request) if self.offline_calls else call(self.call_timeout)

    def show_kept(self) -> None:
        if self.json:
            print('{"kept": true}')

    def show(self, reply: Message, otherwise: str = "", *, if_empty: str = "") -> None:
        """Prints the reply as JSON if that was asked for, else `otherwise`. If both are empty, it prints `if_empty` on
        standard error."""
        if self.json:
            print(formatting.to_json(reply, indent=2))
        elif otherwise:
            print(otherwise)
        elif if_empty:
            warn(if_empty)

    def show_job(self, job: job_pb2.Job | None) -> None:
        if job is None:
            self.show_kept()
        else:
            self.show(job, formatting.line(job, datetime.now(UTC)))
