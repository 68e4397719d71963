"""Commands of a program under `headway run`: they may run before the job exists.

`headway run` creates its job in the background, so that the program starts at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar

import grpc

from headway._engine.calls import job_id_of

if TYPE_CHECKING:
    from grpc import _CallFuture

CREATION_TIMEOUT = 5.0
"""Seconds that a command waits for the job to be created."""

_INTERVAL = 0.1

Request = TypeVar("Request")
Answer = TypeVar("Answer")


def waiting_for_job(channel: grpc.Channel) -> grpc.Channel:
    """The channel. Under `headway run` its calls wait until the job of the run is created."""
    job_id = os.environ.get("HEADWAY_JOB")
    if not job_id or "HEADWAY_PROGRESS_FILE" not in os.environ:
        return channel
    return grpc.intercept_channel(channel, _UntilCreated(job_id))


class _UntilCreated(grpc.UnaryUnaryClientInterceptor):
    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._end = monotonic() + CREATION_TIMEOUT

    def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Request], _CallFuture[Answer]],
        client_call_details: grpc.ClientCallDetails,
        request: Request,
    ) -> _CallFuture[Answer]:
        while True:
            call = continuation(client_call_details, request)
            if (
                job_id_of(request) != self._job_id
                or call.code() is not grpc.StatusCode.NOT_FOUND
                or monotonic() > self._end
            ):
                return call
            sleep(_INTERVAL)
