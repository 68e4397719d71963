"""grpc.channelz.v1: gRPC's statistics of its servers and connections, for one caller at a time.

For a reply, gRPC scans all connections while it holds the interpreter's lock: 1500 connections take 30 ms.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial

import grpc
from google.protobuf import message
from google.protobuf.descriptor import ServiceDescriptor
from grpc_channelz.v1.channelz import ChannelzServicer

from headway_server.domain.errors import Overloaded
from headway_server.resources.budget import Budget, Share
from headway_server.resources.turns import Turns
from headway_server.rpc.open_calls import Context

CALLS_WAITING = 64
"""The most calls that wait or run, in all."""

PAUSE = 9
"""After a look-up, none begins for this many times its duration: look-ups take at most a tenth of the time."""

PAUSE_MAX = 1.0
"""The longest pause, in seconds."""

NOT_FOUND = "There is no server, channel, subchannel or socket with this id."


class _Outcome:
    """Replaces the context. gRPC's servicer uses only these methods."""

    def __init__(self) -> None:
        self.code = grpc.StatusCode.OK
        self.details = ""

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


_LookUp = Callable[[message.Message, _Outcome], message.Message | None]


class Channelz:
    """The servicer, with the methods of `service`."""

    def __init__(self, service: ServiceDescriptor) -> None:
        self._turns = Turns(1)
        self._waiting = Budget(CALLS_WAITING, Overloaded)
        self._next = 0.0
        """When the next look-up may begin (monotonic clock)."""
        for method in service.methods:
            setattr(self, method.name, partial(self._answer, getattr(ChannelzServicer, method.name)))

    async def _answer(self, look_up: _LookUp, request: message.Message, context: Context) -> message.Message:
        outcome = _Outcome()
        holder = context.peer()
        with Share(self._waiting, holder, 1):
            async with self._turns.of(holder):
                await asyncio.sleep(self._next - time.monotonic())
                began = time.monotonic()
                work = asyncio.ensure_future(asyncio.to_thread(look_up, request, outcome))
                try:
                    answer = await asyncio.shield(work)
                finally:
                    # If the caller cancels, the thread still runs: the next look-up waits for its end.
                    await asyncio.wait((work,))
                    now = time.monotonic()
                    self._next = now + min(PAUSE * (now - began), PAUSE_MAX)
        if answer is not None:
            return answer
        if outcome.code is not grpc.StatusCode.NOT_FOUND:
            raise RuntimeError(outcome.details)
        await context.abort(grpc.StatusCode.NOT_FOUND, NOT_FOUND)
        raise AssertionError("abort has raised")
