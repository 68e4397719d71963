"""Temporal's development server, as it comes, in memory: the heartbeat of an activity says how far it is.

`activity.heartbeat()` in the worker of its SDK sends only every so often. Measured is what it costs to send each: by
the handle for activities that complete elsewhere, whose heartbeat is a call with its answer.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueRequest
from temporalio.client import Client

from benchmarks.peers.measure import Peer, Teller, Way
from benchmarks.peers.servers import Program, Servers, free_port, listens, program


class Temporal(Program):
    """Without its web pages."""

    def __enter__(self) -> Self:
        binary = program("temporal", "make bench installs it")
        self.port = free_port()
        place = ("--ip", "127.0.0.1", "--port", str(self.port), "--headless", "--log-level", "error")
        # Else it asks its authors for a newer version.
        quiet = ("--dynamic-config-value", "frontend.enableServerVersionCheck=false")
        self.launch([binary, "server", "start-dev", *place, *quiet], lambda: listens(self.port))
        return self


class Heartbeats(Teller):
    def __init__(self, port: int, number: int) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(self._open(port, f"bench-{number}"))

    async def _open(self, port: int, queue: str) -> None:
        client = await Client.connect(f"127.0.0.1:{port}")
        hour = timedelta(hours=1)
        self._activity = await client.start_activity(
            "work",
            id=f"{queue}-{time.time_ns()}",
            task_queue=queue,
            start_to_close_timeout=hour,
            heartbeat_timeout=hour,
        )
        request = PollActivityTaskQueueRequest(namespace="default", task_queue=TaskQueue(name=queue), identity="bench")
        task = await client.workflow_service.poll_activity_task_queue(request)
        self._handle = client.get_async_activity_handle(task_token=task.task_token)

    def tell(self, reports: int) -> None:
        self._runner.run(self._send(self.told + 1, reports))
        self.told += reports

    async def _send(self, first: int, reports: int) -> None:
        for progress in range(first, first + reports):
            await self._handle.heartbeat(progress)

    def stored(self) -> int:
        return self._runner.run(self._stored())

    async def _stored(self) -> int:
        description = await self._activity.describe(include_heartbeat_details=True)
        found = await description.heartbeat_details([int])
        return int(found[0]) if found else 0

    def close(self) -> None:
        self._runner.run(self._handle.complete())
        self._runner.close()


@dataclass(frozen=True, slots=True)
class By(Way):
    port: int
    chunk: int = 5

    def open(self, number: int) -> Teller:
        return Heartbeats(self.port, number)


def heartbeat(servers: Servers) -> Peer:
    temporal = servers.of(Temporal)
    return Peer("Temporal's heartbeat, each sent", By(temporal.port), temporal)


PEERS = (heartbeat,)
