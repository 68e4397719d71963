"""The Connect protocol: the methods over HTTP as unary calls and streams, in JSON or protobuf.

Every call goes through the guard to the servicer, as over gRPC. Nothing else is decided here.
"""

import asyncio
import gzip
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf import message
from google.protobuf.descriptor import ServiceDescriptor
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headway_server.domain.errors import DeadlinePassed, FormatUnsupported, JobError, MalformedMessage
from headway_server.http import bodies, http_errors, json_codec
from headway_server.http.headers import accepts_gzip, is_utf8
from headway_server.resources.budget import Share
from headway_server.resources.large_replies import LargeReplies
from headway_server.resources.offload import read_off_loop, write_off_loop
from headway_server.rpc import to_proto
from headway_server.rpc.call_guard import PARSED_INLINE_MAX, Answer, Caller, Guard, Method, Refused
from headway_server.rpc.json_values import Json

HTTP_TRANSPORT = "http"

CONNECT_VERSION = "1"

JSON_INLINE_MAX = 4 * 1024
"""Larger requests and replies (bytes) are converted from or to JSON off the event loop. Smaller ones take at most
5 ms."""

COMPRESSED_MIN = 8 * 1024
"""Smaller replies (bytes) are not compressed."""

DEADLINE_PASSED_TEXT = (
    "The deadline passed before the call was done; a write may have been committed, so read the job or repeat the call."
)

T = TypeVar("T")

Run = Callable[[message.Message, Caller], Awaitable[Answer]]
Stream = Callable[[message.Message | AsyncIterator[message.Message], Caller], AsyncGenerator[Answer, None]]


@dataclass(frozen=True, slots=True)
class _Terms:
    """How to read a request and write its reply."""

    in_json: bool
    deadline: float | None
    """By the loop's clock."""
    inflate: bodies.Inflate | None
    zips: bool
    """Whether the reply may be compressed."""

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline."""
        return None if self.deadline is None else self.deadline - asyncio.get_running_loop().time()

    def write(self, answer: Answer, encode: Callable[[Answer], bytes]) -> bytes:
        """The reply as bytes. `encode` converts it to JSON."""
        if self.in_json:
            return encode(answer)
        return answer if isinstance(answer, bytes) else answer.SerializeToString()


class Unary:
    """An ASGI application for one unary method. `encode` converts its replies to JSON."""

    def __init__(
        self,
        method: Method,
        run: Run,
        limit: int,
        encode: Callable[[Answer], bytes],
        large_replies: LargeReplies,
        *,
        json_only: bool = False,
    ) -> None:
        self._method = method
        self._run = run
        self._limit = limit
        self._decode = json_codec.decoder(method.descriptor.input_type, method.guard.limits.values)
        self._encode = encode
        self._large_replies = large_replies
        self._kinds = ("json",) if json_only else ("json", "proto")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with Share(self._method.guard.requests, connection(scope)) as share:
                response = await self._respond(Headers(scope=scope), receive, connection(scope), share)
        except JobError as error:
            response = http_errors.refusal(error)
        except Refused as refused:
            response = http_errors.response(refused.status)
        except bodies.Disconnected:
            return
        if response is not None:
            await response(scope, receive, send)

    async def _answer(self, terms: _Terms, body: list[bytes], caller: Caller, share: Share) -> bytes:
        request = [await _parsed(self._method, self._decode if terms.in_json else None, body.pop())]
        share.give_back()
        async with self._large_replies.turn(caller.connection) if self._method.large else nullcontext():
            # Pass the request on without keeping it: a call that waits long must not hold its request.
            return await _written(terms, await self._run(request.pop(), caller), self._encode)

    async def _respond(self, headers: Headers, receive: Receive, connection: str, share: Share) -> Response | None:
        terms = _terms(headers, "application/", self._kinds, "", self._limit)
        body = await bodies.whole(receive, self._limit, share)
        content = None
        with (
            bodies.Presence(receive) as presence,
            self._method.call(headers.getlist("authorization"), terms.remaining, connection) as caller,
        ):
            presence.listen()
            if terms.inflate is not None:
                body = await read_off_loop(terms.inflate, body)
                share.add(len(body))
            handed_over = [body]
            del body
            content = await _by(terms.deadline, self._answer(terms, handed_over, caller, share))
        if content is None:
            return None
        headers_out = {"cache-control": "no-store"}
        if terms.zips and len(content) >= COMPRESSED_MIN:
            content = await write_off_loop(gzip.compress, content, 1)
            headers_out["content-encoding"] = "gzip"
        return Response(content, 200, headers_out, "application/json" if terms.in_json else "application/proto")


class Streaming:
    """An ASGI application for one method that replies with a stream."""

    def __init__(self, method: Method, run: Stream, limit: int, heartbeat: float) -> None:
        self._method = method
        # No heartbeats for streams of reports: their replies count commits, and an empty one would be wrong.
        self._heartbeat = None if method.descriptor.client_streaming else heartbeat
        self._run = run
        self._limit = limit
        self._decode = json_codec.decoder(method.descriptor.input_type, method.guard.limits.values)
        self._encode = json_codec.encoder(method.descriptor.output_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            kind = _kind(headers, "application/connect+", ("json", "proto"))
        except JobError as error:
            await http_errors.refusal(error)(scope, receive, send)
            return
        with bodies.Presence(receive) as presence, Share(self._method.guard.requests, connection(scope)) as share:
            begun = False
            end: dict[str, Json] = {}
            try:
                async with aclosing(self._answers(headers, receive, presence, connection(scope), share)) as answers:
                    async for answer in answers:
                        if not begun:
                            begun = True
                            await _begin(send, kind)
                        await send({"type": "http.response.body", "body": answer, "more_body": True})
                        # Let other tasks run: `send` does not wait while there is room.
                        await asyncio.sleep(0)
            except JobError as error:
                end["error"] = http_errors.told(to_proto.status(error))
            except Refused as refused:
                end["error"] = http_errors.told(refused.status)
            if not begun:
                await _begin(send, kind)
            await send({"type": "http.response.body", "body": bodies.envelope(bodies.LAST, _dumps(end))})

    async def _answers(
        self, headers: Headers, receive: Receive, presence: bodies.Presence, connection: str, share: Share
    ) -> AsyncGenerator[bytes, None]:
        terms = _terms(headers, "application/connect+", ("json", "proto"), "connect-", self._limit)
        sent = bodies.messages(receive, presence, self._limit, terms.inflate, share)
        several = self._method.descriptor.client_streaming
        only = b"" if several else await bodies.only(sent)
        share.add(len(only))
        with self._method.call(headers.getlist("authorization"), terms.remaining, connection) as caller:
            request = self._requests(sent, terms) if several else await self._parse(terms, only)
            del only
            if not several:
                share.give_back()
                # Send the head now, however long the first reply takes.
                yield b""
            stream = self._run(request, caller)
            del request
            async with aclosing(_or_idle(_until(terms.deadline, stream), self._heartbeat)) as answers:
                async for answer in answers:
                    if answer is None:
                        # Proxies close silent connections. Send an empty message.
                        yield bodies.envelope(0, b"{}" if terms.in_json else b"")
                    else:
                        yield bodies.envelope(0, await _written(terms, answer, self._encode))

    async def _requests(self, sent: AsyncIterator[bytes], terms: "_Terms") -> AsyncGenerator[message.Message, None]:
        async for part in sent:
            request = [await self._parse(terms, part)]
            del part
            # Yield the request without keeping it while waiting for the next one.
            yield request.pop()

    async def _parse(self, terms: "_Terms", part: bytes) -> message.Message:
        return await _parsed(self._method, self._decode if terms.in_json else None, part)


def applications(
    guard: Guard,
    service: ServiceDescriptor,
    servicer: object,
    limit: int,
    large_replies: LargeReplies,
    heartbeat: float,
) -> Mapping[str, Unary | Streaming]:
    """An ASGI application for each method, by its name. `limit`: the largest message in bytes. An idle watch sends an
    empty message every `heartbeat` seconds."""
    made: dict[str, Unary | Streaming] = {}
    for descriptor in service.methods:
        method, run = guard.method(descriptor, HTTP_TRANSPORT), getattr(servicer, descriptor.name)
        if descriptor.server_streaming:
            made[descriptor.name] = Streaming(method, run, limit, heartbeat)
        else:
            made[descriptor.name] = Unary(method, run, limit, json_codec.encoder(descriptor.output_type), large_replies)
    return made


def connection(scope: Mapping[str, object]) -> str:
    """The name of a request's connection."""
    return f"http:{scope['client']}"


def _kind(headers: Headers, prefix: str, kinds: Collection[str]) -> str:
    """Which of `kinds` follows the prefix in the content type. Raises FormatUnsupported."""
    media, *parameters = (part.strip() for part in headers.get("content-type", "").lower().split(";"))
    kind = media.removeprefix(prefix)
    if prefix + kind != media or kind not in kinds or not all(map(is_utf8, parameters)):
        wanted = " or ".join(f"{prefix}{kind}" for kind in kinds)
        raise FormatUnsupported(f"Send this request as 'Content-Type: {wanted}', text in UTF-8.")
    return kind


def _terms(headers: Headers, prefix: str, kinds: Collection[str], coding: str, limit: int) -> _Terms:
    kind = _kind(headers, prefix, kinds)
    if headers.get("connect-protocol-version", CONNECT_VERSION) != CONNECT_VERSION:
        raise FormatUnsupported(
            f"The server speaks version {CONNECT_VERSION} of Connect: 'Connect-Protocol-Version: {CONNECT_VERSION}'."
        )
    timeout = headers.get("connect-timeout-ms")
    deadline = None
    if timeout is not None:
        if not re.fullmatch(r"\d{1,10}", timeout, re.ASCII):
            raise MalformedMessage("Connect-Timeout-Ms must be a whole number of milliseconds, of at most 10 digits.")
        deadline = asyncio.get_running_loop().time() + int(timeout) / 1000
    inflate = bodies.inflater(headers.get(f"{coding}content-encoding", "").strip().lower(), limit)
    return _Terms(kind == "json", deadline, inflate, accepts_gzip(headers.get("accept-encoding", "")))


async def _parsed(method: Method, decode: Callable[[bytes], bytes] | None, body: bytes) -> message.Message:
    """Parse the request in a body. `decode` converts JSON to protobuf."""
    if decode is None:
        return await method.parse(body)
    if len(body) <= JSON_INLINE_MAX:
        return method.parse_now(decode(body))
    return await method.expand(lambda: method.parse_now(decode(body)))


async def _written(terms: _Terms, answer: Answer, encode: Callable[[Answer], bytes]) -> bytes:
    size = len(answer) if isinstance(answer, bytes) else answer.ByteSize()
    if size <= (JSON_INLINE_MAX if terms.in_json else PARSED_INLINE_MAX):
        return terms.write(answer, encode)
    return await write_off_loop(terms.write, answer, encode)


async def _by(deadline: float | None, work: Awaitable[T]) -> T:
    """The result of the work. Raises DeadlinePassed if the deadline passes before."""
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise DeadlinePassed(DEADLINE_PASSED_TEXT) from None


async def _until(deadline: float | None, answers: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The replies that come before the deadline. Raises DeadlinePassed."""
    async with aclosing(answers):
        while True:
            try:
                answer = await _by(deadline, anext(answers))
            except StopAsyncIteration:
                return
            yield answer


async def _or_idle(answers: AsyncGenerator[T, None], interval: float | None) -> AsyncGenerator[T | None, None]:
    """The replies, and None each time that none came for `interval` seconds."""
    coming: asyncio.Future[T | None] | None = None
    async with aclosing(answers):
        try:
            while True:
                if coming is None:
                    coming = asyncio.ensure_future(anext(answers, None))
                await asyncio.wait((coming,), timeout=interval)
                if not coming.done():
                    yield None
                    continue
                answer, coming = coming.result(), None
                if answer is None:
                    return
                yield answer
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait((coming,))


async def _begin(send: Send, kind: str) -> None:
    headers = {
        "content-type": f"application/connect+{kind}",
        "cache-control": "no-store",
        # A buffering proxy would hold the messages back.
        "x-accel-buffering": "no",
    }
    raw = [(name.encode(), text.encode()) for name, text in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})


def _dumps(plain: Json) -> bytes:
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
