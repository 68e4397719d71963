"""The methods over HTTP, as the Connect protocol has it: unary calls and streams, in JSON or protobuf.

Nothing is decided here: every call goes through the guard to the servicer, as it does over gRPC.
"""

import asyncio
import gzip
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from google.protobuf import message
from google.protobuf.descriptor import ServiceDescriptor
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headway_server import bodies, refusals, replies, transcode
from headway_server.errors import DeadlinePassed, FormatUnsupported, JobError, MalformedMessage
from headway_server.guard import Answer, Caller, Guard, Method, Refused
from headway_server.json_values import Json
from headway_server.requests import LARGE

DOOR = "http"

VERSION = "1"

ZIPPED_FROM = 8 * 1024
"""Answers of fewer bytes are not worth compressing."""

LATE = (
    "The deadline passed before the call was done; a write may have been committed all the same, so look or repeat it."
)

T = TypeVar("T")
P = ParamSpec("P")

Run = Callable[[message.Message, Caller], Awaitable[Answer]]
Stream = Callable[[message.Message | AsyncIterator[message.Message], Caller], AsyncGenerator[Answer, None]]


@dataclass(frozen=True, slots=True)
class _Terms:
    """How a request is to be read and answered."""

    in_json: bool
    deadline: float | None
    """By the loop's clock."""
    inflate: bodies.Inflate | None
    zips: bool
    """Whether its answer may be compressed."""

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline."""
        return None if self.deadline is None else self.deadline - asyncio.get_running_loop().time()

    def write(self, answer: Answer, encode: Callable[[Answer], bytes]) -> bytes:
        """The answer as it is sent; `encode` makes JSON of it."""
        if self.in_json:
            return encode(answer)
        return answer if isinstance(answer, bytes) else answer.SerializeToString()


class Unary:
    """An ASGI application that serves one unary method. `encode` makes JSON of its answers."""

    def __init__(
        self, method: Method, run: Run, limit: int, encode: Callable[[Answer], bytes], *, json_only: bool = False
    ) -> None:
        self._method = method
        self._run = run
        self._limit = limit
        self._decode = transcode.decoder(method.descriptor.input_type)
        self._encode = encode
        self._kinds = ("json",) if json_only else ("json", "proto")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._respond(scope, receive)
        except JobError as error:
            response = refusals.refusal(error)
        except Refused as refused:
            response = refusals.response(refused.status)
        except bodies.Gone:
            return
        if response is not None:
            await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response | None:
        headers = Headers(scope=scope)
        terms = _terms(headers, "application/", self._kinds, "", self._limit)
        body = await bodies.whole(receive, self._limit)
        content = None
        with (
            bodies.Presence(receive) as presence,
            self._method.call(headers.getlist("authorization"), terms.remaining, partial(_peer, scope)) as caller,
        ):
            presence.listen()
            raw = await _aside(len(body), self._read, terms, body)
            answer = await _by(terms.deadline, self._run(self._method.parse(raw), caller))
            content = await _aside(_size(answer), terms.write, answer, self._encode)
        if content is None:
            return None
        headers_out = {"cache-control": "no-store"}
        if terms.zips and len(content) >= ZIPPED_FROM:
            content = await _aside(len(content), gzip.compress, content, 1)
            headers_out["content-encoding"] = "gzip"
        return Response(content, 200, headers_out, "application/json" if terms.in_json else "application/proto")

    def _read(self, terms: _Terms, body: bytes) -> bytes:
        if terms.inflate is not None:
            body = terms.inflate(body)
        return self._decode(body) if terms.in_json else body


class Streaming:
    """An ASGI application that serves one method that answers with a stream."""

    def __init__(self, method: Method, run: Stream, limit: int) -> None:
        self._method = method
        self._run = run
        self._limit = limit
        self._decode = transcode.decoder(method.descriptor.input_type)
        self._encode = transcode.encoder(method.descriptor.output_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            kind = _kind(headers, "application/connect+", ("json", "proto"))
        except JobError as error:
            await refusals.refusal(error)(scope, receive, send)
            return
        with bodies.Presence(receive) as presence:
            begun = False
            end: dict[str, Json] = {}
            try:
                async with aclosing(self._answers(scope, headers, receive, presence)) as answers:
                    async for answer in answers:
                        if not begun:
                            begun = True
                            await _begin(send, kind)
                        await send({"type": "http.response.body", "body": answer, "more_body": True})
                        # Others have their turn: as long as there is room, to send is not to wait.
                        await asyncio.sleep(0)
            except JobError as error:
                end["error"] = refusals.told(replies.status(error))
            except Refused as refused:
                end["error"] = refusals.told(refused.status)
            if not begun:
                await _begin(send, kind)
            await send({"type": "http.response.body", "body": bodies.envelope(bodies.LAST, _dumps(end))})

    async def _answers(
        self, scope: Scope, headers: Headers, receive: Receive, presence: bodies.Presence
    ) -> AsyncGenerator[bytes, None]:
        terms = _terms(headers, "application/connect+", ("json", "proto"), "connect-", self._limit)
        sent = bodies.messages(receive, presence, self._limit, terms.inflate)
        several = self._method.descriptor.client_streaming
        only = b"" if several else await bodies.only(sent)
        with self._method.call(headers.getlist("authorization"), terms.remaining, partial(_peer, scope)) as caller:
            request = self._requests(sent, terms) if several else self._parse(terms, only)
            if not several:
                # The caller hears that they are served, however long the first answer takes.
                yield b""
            async with aclosing(_until(terms.deadline, self._run(request, caller))) as answers:
                async for answer in answers:
                    yield bodies.envelope(0, terms.write(answer, self._encode))

    async def _requests(self, sent: AsyncIterator[bytes], terms: "_Terms") -> AsyncGenerator[message.Message, None]:
        async for part in sent:
            yield await _aside(len(part), self._parse, terms, part)

    def _parse(self, terms: "_Terms", part: bytes) -> message.Message:
        return self._method.parse(self._decode(part) if terms.in_json else part)


def applications(
    guard: Guard, service: ServiceDescriptor, servicer: object, limit: int
) -> Mapping[str, Unary | Streaming]:
    """An ASGI application for each method, by its name. `limit` is that of a message, in bytes."""
    made: dict[str, Unary | Streaming] = {}
    for descriptor in service.methods:
        method, run = guard.method(descriptor, DOOR), getattr(servicer, descriptor.name)
        if descriptor.server_streaming:
            made[descriptor.name] = Streaming(method, run, limit)
        else:
            made[descriptor.name] = Unary(method, run, limit, transcode.encoder(descriptor.output_type))
    return made


def _peer(scope: Scope) -> str:
    """The name of the connection."""
    return repr(scope.get("client"))


def _kind(headers: Headers, prefix: str, kinds: Collection[str]) -> str:
    """Which of the kinds the content type names behind the prefix. Raises FormatUnsupported."""
    media, *parameters = (part.strip() for part in headers.get("content-type", "").lower().split(";"))
    kind = media.removeprefix(prefix)
    foreign = any(text.startswith("charset=") and "utf-8" not in text for text in parameters)
    if prefix + kind != media or kind not in kinds or foreign:
        wanted = " or ".join(f"{prefix}{kind}" for kind in kinds)
        raise FormatUnsupported(f"Send this request as 'Content-Type: {wanted}', text in UTF-8.")
    return kind


def _terms(headers: Headers, prefix: str, kinds: Collection[str], coding: str, limit: int) -> _Terms:
    kind = _kind(headers, prefix, kinds)
    if headers.get("connect-protocol-version", VERSION) != VERSION:
        raise FormatUnsupported(
            f"This is version {VERSION} of the Connect protocol: 'Connect-Protocol-Version: {VERSION}'."
        )
    timeout = headers.get("connect-timeout-ms")
    deadline = None
    if timeout is not None:
        if not re.fullmatch(r"\d{1,10}", timeout, re.ASCII):
            raise MalformedMessage("Connect-Timeout-Ms must be a whole number of milliseconds, of at most 10 digits.")
        deadline = asyncio.get_running_loop().time() + int(timeout) / 1000
    inflate = bodies.inflater(headers.get(f"{coding}content-encoding", "").strip().lower(), limit)
    accepted = headers.get("accept-encoding", "").lower().replace(" ", "").split(",")
    return _Terms(kind == "json", deadline, inflate, "gzip" in accepted)


async def _aside(size: int, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What the work returns; large ones (of `size` bytes) are done off the event loop."""
    if size < LARGE:
        return work(*arguments, **named)
    return await asyncio.to_thread(work, *arguments, **named)


def _size(answer: Answer) -> int:
    return len(answer) if isinstance(answer, bytes) else answer.ByteSize()


async def _by(deadline: float | None, work: Awaitable[T]) -> T:
    """What the work gives, unless the deadline passes before. Raises DeadlinePassed."""
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise DeadlinePassed(LATE) from None


async def _until(deadline: float | None, answers: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The answers that come before the deadline. Raises DeadlinePassed."""
    async with aclosing(answers):
        while True:
            try:
                answer = await _by(deadline, anext(answers))
            except StopAsyncIteration:
                return
            yield answer


async def _begin(send: Send, kind: str) -> None:
    headers = {
        "content-type": f"application/connect+{kind}",
        "cache-control": "no-store",
        # A proxy that gathers answers would hold them back for ever.
        "x-accel-buffering": "no",
    }
    raw = [(name.encode(), text.encode()) for name, text in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})


def _dumps(plain: Json) -> bytes:
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
