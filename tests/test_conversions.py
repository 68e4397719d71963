"""Large requests to convert: a caller that sends many waits, and is refused in the end; others are served."""

import asyncio
import time

import pytest

from headway_server.domain.errors import Overloaded
from headway_server.rpc import conversions
from headway_server.rpc.conversions import Conversions


async def test_who_sends_much_holds_nobody_else_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversions, "CONVERSION_WAIT_MAX", 0.2)
    monkeypatch.setattr(conversions, "CONVERSION_SMOOTHING", 1.0)
    convert = Conversions()
    done: list[str] = []

    def work(connection: str) -> None:
        time.sleep(0.02)
        done.append(connection)

    await convert("greedy", work, "first")
    calls = [asyncio.create_task(convert("greedy", work, "greedy")) for _ in range(50)]
    await asyncio.sleep(0)
    await convert("modest", work, "modest")
    assert done.index("modest") <= 1 + conversions.CONVERSIONS_QUEUED + 1
    await asyncio.wait(calls)
    refused = [error for call in calls if (error := call.exception()) is not None]
    assert refused
    assert all(isinstance(error, Overloaded) and error.retry_after >= 1 for error in refused)
    assert len(done) == 2 + 50 - len(refused)


async def test_who_can_wait_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversions, "CONVERSION_WAIT_MAX", 0.0)
    convert = Conversions()
    await convert.without_limit("stream", time.sleep, 0.001)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(convert.without_limit("stream", time.sleep, 0.001))
