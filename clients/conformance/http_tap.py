"""The tap for clients that speak HTTP: between a driver and the server's HTTP port."""

import asyncio
import http.client
import json
import threading
from typing import Self

import uvicorn
from google.protobuf import json_format
from starlette.requests import Request
from starlette.responses import Response

from clients.conformance.record import Record
from clients.conformance.tap import Loop, Rules
from headway.v1 import job_service_pb2 as rpc

_STATUSES = {"UNAVAILABLE": 503, "RESOURCE_EXHAUSTED": 429, "DEADLINE_EXCEEDED": 504}
_PASSED_ON = ("content-type", "connect-timeout-ms", "content-encoding", "accept-encoding")


class HttpTap:
    """Accepts the HTTP port's calls and passes them on to `target` ("host:port"); streams are passed on whole."""

    def __init__(self, loop: Loop, target: str) -> None:
        self.record = Record()
        self.rules = Rules()
        self.address = ""
        self._target = target

    def __enter__(self) -> Self:
        config = uvicorn.Config(
            self._app,
            port=0,
            log_level="critical",
            http="h11",
            lifespan="off",
            interface="asgi3",
            timeout_graceful_shutdown=0,
        )
        self._server = uvicorn.Server(config)
        self._socket = config.bind_socket()
        # Callers that come before the thread has begun wait, and are not refused.
        self._socket.listen()
        self.address = "http://{}:{}".format(*self._socket.getsockname())
        self._thread = threading.Thread(target=lambda: self._server.run([self._socket]), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()

    async def _app(self, scope: object, receive: object, send: object) -> None:
        request = Request(scope, receive, send)  # type: ignore[arg-type]
        response = await self._answer(request)
        await response(scope, receive, send)  # type: ignore[arg-type]

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        method = request.url.path.rpartition("/")[2]
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.record.note(method, token, _reports(method, body))
        struck = self.rules.strike(method)
        if struck == "hang":
            await asyncio.sleep(60)
        elif struck and struck != "lose":
            return _refusal(struck)
        headers = {name: value for name, value in request.headers.items() if name in _PASSED_ON}
        status, content, kind = await asyncio.to_thread(self._hand_on, request.url.path, body, headers)
        if struck == "lose":
            return _refusal("UNAVAILABLE")
        if self.rules.delay:
            await asyncio.sleep(self.rules.delay)
        if self.rules.pace and status == 200 and method == "ReportProgress":
            content = json.dumps({**json.loads(content), "nextReportAfter": f"{self.rules.pace:g}s"}).encode()
        return Response(content, status, media_type=kind)

    def _hand_on(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, str]:
        connection = http.client.HTTPConnection(self._target, timeout=70)
        try:
            connection.request("POST", path, body, {**headers, "accept-encoding": "identity"})
            response = connection.getresponse()
            return response.status, response.read(), response.headers.get("content-type", "")
        except OSError:
            return 503, b'{"code": "unavailable", "message": "the server is unreachable"}', "application/json"
        finally:
            connection.close()


def _reports(method: str, body: bytes) -> tuple[rpc.ReportProgressRequest, ...]:
    if method == "ReportProgress":
        return (json_format.Parse(body, rpc.ReportProgressRequest()),)
    reports: list[rpc.ReportProgressRequest] = []
    while method == "StreamProgress" and body:
        length = int.from_bytes(body[1:5], "big")
        reports += json_format.Parse(body[5 : 5 + length], rpc.StreamProgressRequest()).reports
        body = body[5 + length :]
    return tuple(reports)


def _refusal(code: str) -> Response:
    body = json.dumps({"code": code.lower(), "message": "refused on the way"})
    return Response(body, _STATUSES.get(code, 500), media_type="application/json")
