"""Bodies of HTTP requests: reads them within limits of size and time, decompresses them, and splits streams."""

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
"""Seconds in which a request must arrive. The same for a message of a stream once it has begun."""

COMPRESSED, LAST = 1, 2
"""Flags of an envelope."""

_HEAD = struct.Struct(">BI")

Inflate = Callable[[bytes], bytes]
"""Decompresses a message. Raises MalformedMessage and MessageTooLarge."""


class Disconnected(Exception):
    """The caller closed the connection before the whole request arrived."""


class Presence:
    """Watches the caller's connection: a disconnect cancels the work within `with`."""

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
        """Begin to detect a disconnect, after the whole request was read."""
        self._listener = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left()

    def left(self) -> None:
        """The caller has disconnected: cancel the work."""
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
    """The whole body, counted in `share`. Raises MessageTooLarge, MemoryLimit, RequestTooSlow, Disconnected."""
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
    """The messages of a stream as they arrive. Each counts in `share` until the next one is requested. Raises
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
            # The reader is cancelled together with the work.
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
            # Yield the message without keeping it while waiting for the next one.
            yield message.pop()
            share.drop(held)
        if buffer and deadline is None:
            deadline = asyncio.get_running_loop().time() + REQUEST_TIMEOUT
    presence.listen()
    if buffer:
        raise MalformedMessage("The stream ended in the middle of a message.")


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
    """The length of the first message in the buffer, or None until the whole message is there."""
    if len(buffer) < _HEAD.size:
        return None
    flags, length = _HEAD.unpack_from(buffer)
    if flags & ~COMPRESSED:
        raise MalformedMessage("The first byte of a message has flags that are not allowed in a request.")
    if length > limit:
        raise MessageTooLarge
    return length if len(buffer) >= _HEAD.size + length else None


async def _cut(buffer: bytearray, size: int, limit: int, inflate: Inflate | None, share: Share) -> bytes:
    """Remove the first message from the buffer and return it. It counts in `share` with its decompressed size."""
    end = _HEAD.size + size
    compressed = buffer[0] & COMPRESSED
    message = bytes(buffer[_HEAD.size : end])
    del buffer[:end]
    share.drop(_HEAD.size)
    if not compressed:
        return message
    if inflate is None:
        raise MalformedMessage("A message is compressed, but the request does not name the compression.")
    message = await read_off_loop(inflate, message)
    share.add(len(message))
    share.drop(size)
    return message


def envelope(flags: int, message: bytes) -> bytes:
    """A message of a stream, as it is sent."""
    return _HEAD.pack(flags, len(message)) + message


def inflater(coding: str, limit: int) -> Inflate | None:
    """The function that decompresses this content coding, or None for no compression. Raises FormatUnsupported."""
    match coding:
        case "" | "identity":
            return None
        case "gzip":
            return lambda raw: _gunzip(raw, limit)
        case _:
            raise FormatUnsupported("The supported compressions are gzip and identity.")


def _gunzip(raw: bytes, limit: int) -> bytes:
    if not raw:
        return raw
    unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        message = unzip.decompress(raw, limit + 1)
    except zlib.error:
        raise MalformedMessage("The message is not valid gzip, although the request says so.") from None
    if len(message) > limit:
        raise MessageTooLarge
    if not unzip.eof or unzip.unused_data:
        raise MalformedMessage("The message is not exactly one complete gzip stream.")
    return message
