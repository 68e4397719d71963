"""What a request over HTTP carries: read within limits of size and time, decompressed, cut into a stream's messages."""

import asyncio
import struct
import zlib
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Self

from starlette.types import Receive

from headway_server.domain.errors import FormatUnsupported, MalformedMessage, MessageTooLarge, RequestTooSlow
from headway_server.resources.budget import Share
from headway_server.resources.offload import read_off_loop

REQUEST_TIMEOUT = 30.0
"""Seconds in which a request, or a message of a stream that has begun, must have arrived."""

COMPRESSED, LAST = 1, 2
"""Flags of an envelope."""

_HEAD = struct.Struct(">BI")

Inflate = Callable[[bytes], bytes]
"""From a message as it was sent to what it says. Raises MalformedMessage, MessageTooLarge."""


class Disconnected(Exception):
    """The caller has closed the connection before the request was there."""


class Presence:
    """The caller at the other end: the work within `with` is cancelled as soon as they leave."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._listener: asyncio.Task[None] | None = None
        self._left = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        return self

    def listen(self) -> None:
        """Notice when they leave; nothing more is to be read."""
        self._listener = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left()

    def left(self) -> None:
        """They have left."""
        self._left = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if self._listener is not None:
            self._listener.cancel()
        if self._left and isinstance(error, asyncio.CancelledError):
            self._task.uncancel()
            return True
        return False


async def whole(receive: Receive, limit: int, share: Share) -> bytes:
    """All of the body, counted in `share`. Raises MessageTooLarge, MemoryLimit, RequestTooSlow, Disconnected."""
    body = bytearray()
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                chunk = message.get("body", b"")
                share.add(len(chunk))
                body += chunk
                if len(body) > limit:
                    raise MessageTooLarge
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise RequestTooSlow from None


async def messages(
    receive: Receive, presence: Presence, limit: int, inflate: Inflate | None, share: Share
) -> AsyncGenerator[bytes, None]:
    """The messages of a stream as they arrive; each is counted in `share` until the next one is asked for. Raises
    MalformedMessage, MessageTooLarge, MemoryLimit, RequestTooSlow."""
    buffer = bytearray()
    deadline: float | None = None
    more = True
    while more:
        try:
            async with asyncio.timeout_at(deadline):
                event = await receive()
        except TimeoutError:
            raise RequestTooSlow from None
        if event["type"] == "http.disconnect":
            presence.left()
            # Whoever reads is cancelled with the work.
            await asyncio.Event().wait()
        chunk = event.get("body", b"")
        share.add(len(chunk))
        buffer += chunk
        more = event.get("more_body", False)
        del event, chunk
        while (size := _complete(buffer, limit)) is not None:
            deadline = None
            message = [await _cut(buffer, size, limit, inflate, share)]
            held = len(message[0])
            # Handed over: while the next one is awaited, this one is not kept here.
            yield message.pop()
            share.drop(held)
        if buffer and deadline is None:
            deadline = asyncio.get_running_loop().time() + REQUEST_TIMEOUT
    presence.listen()
    if buffer:
        raise MalformedMessage("The stream ends within a message.")


async def only(sent: AsyncGenerator[bytes, None]) -> bytes:
    """The one message of a stream. Raises FormatUnsupported, RequestTooSlow."""
    found = None
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            async for message in sent:
                if found is not None:
                    raise FormatUnsupported("The request must be one message in its envelope, not several.")
                found = message
    except TimeoutError:
        raise RequestTooSlow from None
    if found is None:
        raise FormatUnsupported("The request must be one message in its envelope, not none.")
    return found


def _complete(buffer: bytearray, limit: int) -> int | None:
    """The length of the first message in the buffer; None until it is there as a whole."""
    if len(buffer) < _HEAD.size:
        return None
    flags, length = _HEAD.unpack_from(buffer)
    if flags & ~COMPRESSED:
        raise MalformedMessage("A message's first byte has flags that a request cannot have.")
    if length > limit:
        raise MessageTooLarge
    return length if len(buffer) >= _HEAD.size + length else None


async def _cut(buffer: bytearray, size: int, limit: int, inflate: Inflate | None, share: Share) -> bytes:
    """The first message, which is taken from the buffer. It alone is counted in `share`, by its inflated size."""
    end = _HEAD.size + size
    compressed = buffer[0] & COMPRESSED
    message = bytes(buffer[_HEAD.size : end])
    del buffer[:end]
    share.drop(_HEAD.size)
    if not compressed:
        return message
    if inflate is None:
        raise MalformedMessage("A message is compressed, and the request does not say how.")
    message = await read_off_loop(inflate, message)
    share.add(len(message))
    share.drop(size)
    return message


def envelope(flags: int, message: bytes) -> bytes:
    """A message of a stream, as it is sent."""
    return _HEAD.pack(flags, len(message)) + message


def inflater(coding: str, limit: int) -> Inflate | None:
    """For what was sent with this content coding; None for what is as it is. Raises FormatUnsupported."""
    match coding:
        case "" | "identity":
            return None
        case "gzip":
            return lambda raw: _gunzip(raw, limit)
        case _:
            raise FormatUnsupported("The compressions that are understood are gzip and identity.")


def _gunzip(raw: bytes, limit: int) -> bytes:
    if not raw:
        return raw
    unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        message = unzip.decompress(raw, limit + 1)
    except zlib.error:
        raise MalformedMessage("The message is not compressed with gzip, as it says.") from None
    if len(message) > limit:
        raise MessageTooLarge
    if not unzip.eof or unzip.unused_data:
        raise MalformedMessage("The message is not one whole gzip stream.")
    return message
