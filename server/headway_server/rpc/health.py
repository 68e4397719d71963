"""grpc.health.v1: whether this server should get calls. A slow watcher does not delay a change.

gRPC's own servicer waits for each watcher while it holds the lock that a change needs, and keeps the requests.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import grpc
from grpc_health.v1 import health_pb2

from headway_server.rpc.open_calls import Context

HTTP_PORT = "headway-http-port"
"""The trailing metadata of Check with the HTTP port, for the page and JSON."""

_Response = health_pb2.HealthCheckResponse


class Health:
    """The servicer. `services`: the known names. Each has the health of the whole server."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = frozenset(services)
        self._serving = False
        self._changed = asyncio.Event()
        self.http_port = 0
        """The HTTP port, which each reply contains, so that clients find the page. 0: there is none."""

    def set(self, serving: bool) -> None:
        """Set the health. Notifies all watchers if it changed."""
        if serving != self._serving:
            self._serving = serving
            self._changed.set()
            self._changed = asyncio.Event()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        context.set_trailing_metadata(((HTTP_PORT, str(self.http_port)),))
        return self._health()

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        known = request.service in self._services
        # A name can be long, and a watch lasts long.
        del request
        if not known:
            yield _Response(status=_Response.SERVICE_UNKNOWN)
            await asyncio.Event().wait()
        while True:
            changed = self._changed
            yield self._health()
            await changed.wait()

    def _health(self) -> health_pb2.HealthCheckResponse:
        return _Response(status=_Response.SERVING if self._serving else _Response.NOT_SERVING)
