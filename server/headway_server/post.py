"""One POST to a receiver that the operator named: HTTP/1.1, no redirect, no proxy, and never to an address that was not
checked.

The name is looked up here, the address checked, and that very address connected to, so that no second look-up can lead
elsewhere. TLS still checks the certificate for the name.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from headway_server.addresses import may_reach

TIMEOUT = 15.0
"""Seconds that all of it may take."""

CONNECT_TIMEOUT = 5.0
"""Seconds for one of a host's addresses."""

HEAD_BYTES_MAX = 16 * 1024
"""An answer's status line and headers may be so long."""

BODY_BYTES_MAX = 16 * 1024
"""So much of an answer's body is read, and none kept: a receiver whose answer nobody reads may think it failed."""

BODY_TIMEOUT = 1.0
"""Seconds for that."""

CHUNK = 4096

PORTS = {"https": 443, "http": 80}


class NoAnswer(Exception):
    """Nothing came back; the message says why in a few words, none of them the receiver's."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    retry_after: str
    """The header Retry-After, or ""."""


class Poster:
    """Posts to receivers. `private`: those of this machine and its own network too."""

    def __init__(self, *, private: bool) -> None:
        self._private = private
        self._tls = ssl.create_default_context()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """What the receiver answers. Raises NoAnswer."""
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._post(url, headers, body)
        except TimeoutError:
            raise NoAnswer(f"no answer within {TIMEOUT:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise NoAnswer(f"its certificate is not valid: {error.verify_message}") from None
        except ssl.SSLError:
            raise NoAnswer("it does not speak TLS as it should") from None
        except h11.ProtocolError:
            raise NoAnswer("it does not speak HTTP as it should") from None
        except OSError as error:
            raise NoAnswer(f"no connection: {error.strerror or type(error).__name__}") from None

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        parts = urlsplit(url)
        reader, writer = await self._connect(parts.scheme, parts.hostname or "", parts.port or PORTS[parts.scheme])
        try:
            head = h11.Request(
                method="POST",
                target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
                headers=[
                    ("host", parts.netloc),
                    ("connection", "close"),
                    ("content-length", str(len(body))),
                    *headers.items(),
                ],
            )
            protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                writer.write(protocol.send(event) or b"")
            await writer.drain()
            answer = await _read_head(protocol, reader)
            with suppress(TimeoutError, OSError, h11.ProtocolError):
                async with asyncio.timeout(BODY_TIMEOUT):
                    await _read_body(protocol, reader)
            return answer
        finally:
            # Not closed in good order: that would wait for a receiver that reads no further.
            writer.transport.abort()

    async def _connect(self, scheme: str, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        addresses = await self._addresses(host, port)
        for position, address in enumerate(addresses, 1):
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    if scheme == "http":
                        return await asyncio.open_connection(address, port)
                    return await asyncio.open_connection(address, port, ssl=self._tls, server_hostname=host)
            except (TimeoutError, OSError):
                if position == len(addresses):
                    raise
        raise NoAnswer("its name stands for no address that notices may be sent to")

    async def _addresses(self, host: str, port: int) -> list[str]:
        """Those of the host's addresses that something may be sent to."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError):
            raise NoAnswer("its name cannot be found") from None
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        return [text for text in addresses if may_reach(ipaddress.ip_address(text), private=self._private)]


async def _read_head(protocol: h11.Connection, reader: asyncio.StreamReader) -> Answer:
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            chunk = await reader.read(CHUNK)
            if not chunk:
                raise NoAnswer("it closed the connection without an answer")
            protocol.receive_data(chunk)
        elif isinstance(event, h11.Response):
            retry_after = next((value for name, value in event.headers if name == b"retry-after"), b"")
            return Answer(event.status_code, retry_after.decode("latin-1"))


async def _read_body(protocol: h11.Connection, reader: asyncio.StreamReader) -> None:
    read = 0
    while read < BODY_BYTES_MAX:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            chunk = await reader.read(CHUNK)
            read += len(chunk)
            protocol.receive_data(chunk)
        elif not isinstance(event, h11.Data):
            return
