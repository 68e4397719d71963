"""A call that was refused is freed at once, and not when the collector comes: it may hold megabytes."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from google.protobuf import message_factory

from headway_server.domain.errors import JobError
from headway_server.rpc.call_guard import Refused
from tests.support.app import RunningApp
from tests.support.methods import METHODS, UNNAMED, call, good
from tests.support.waiting import until


@contextmanager
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _errors() -> list[JobError | Refused]:
    """Errors of the server that are still in memory."""
    return [one for one in gc.get_objects() if isinstance(one, JobError | Refused)]


REQUESTS = {
    "no such job": lambda method: good(method, "nobody", "0" * 32).SerializeToString(),
    "invalid": lambda method: message_factory.GetMessageClass(METHODS[method].input_type)().SerializeToString(),
    "malformed": lambda method: b"\xff" * 100,
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_refused_calls_are_freed(app: RunningApp, kind: str) -> None:
    requests = {method: REQUESTS[kind](method) for method in METHODS if kind != "no such job" or method not in UNNAMED}
    with _without_collector():
        for method, request in requests.items():
            for _ in range(3):
                call(app, method, request)
        # gRPC refers to the last call until another comes.
        until(lambda: len(_errors()) <= 1)
