"""Sends one POST to a receiver that the operator named: HTTP/1.1, no redirects, no proxy, only to checked addresses.

For each POST the client looks up the name, checks the addresses, and connects to one of exactly these addresses: a
second look-up could return others. TLS still checks the certificate for the name.
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

from headway_server.webhooks.address_policy import may_reach
from headway_server.webhooks.dns import LOOKUP_TIMEOUT, Lookup

RESPONSE_TIMEOUT = 15.0
"""Seconds from the look-up to the end of the response's head."""

CONNECT_TIMEOUT = 10.0
"""Seconds for TCP and TLS, divided among the addresses that are left to try: the last one gets its share even if all
others are silent."""

ADDRESSES_MAX = 8
"""The most addresses of a host that are tried: each one's share must be long enough for a distant receiver."""

HEAD_BYTES_MAX = 16 * 1024
"""The most bytes of a response's status line and headers."""

BODY_BYTES_MAX = 16 * 1024
"""How many bytes of a response's body are read and dropped: a receiver may report an error if its response is not
read."""

BODY_TIMEOUT = 1.0
"""Seconds for reading the body."""

SEND_TIME_MAX = RESPONSE_TIMEOUT + BODY_TIMEOUT
"""The most seconds that a POST takes."""

READ_BYTES = 4096

DEFAULT_PORTS = {"https": 443, "http": 80}


class NoResponse(Exception):
    """The receiver did not respond. The message says why, and contains no text of the receiver."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    retry_after: str
    """The header Retry-After, or ""."""


class WebhookClient:
    """Posts to one receiver. `private`: the receiver may be on this machine or its own network."""

    def __init__(self, url: str, tls: ssl.SSLContext, *, private: bool) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or DEFAULT_PORTS[parts.scheme]
        self._authority = parts.netloc
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._tls = tls if parts.scheme == "https" else None
        self._private = private
        self._lookup = Lookup(self._host, self._port)

    async def post(self, headers: Mapping[str, str], body: bytes) -> Response:
        """Send a POST. Returns the receiver's response. Raises NoResponse."""
        try:
            return await self._post(headers, body)
        except TimeoutError:
            raise NoResponse(f"no response within {RESPONSE_TIMEOUT:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise NoResponse(f"its certificate is not valid: {error.verify_message}") from None
        except ssl.SSLError:
            raise NoResponse("it does not speak valid TLS") from None
        except h11.ProtocolError:
            raise NoResponse("it does not speak valid HTTP") from None
        except OSError as error:
            raise NoResponse(f"no connection: {error.strerror or type(error).__name__}") from None

    async def _post(self, headers: Mapping[str, str], body: bytes) -> Response:
        async with asyncio.timeout(RESPONSE_TIMEOUT) as limit:
            reader, writer = await self._connect()
            try:
                head = h11.Request(
                    method="POST",
                    target=self._target,
                    headers=[
                        ("host", self._authority),
                        ("connection", "close"),
                        ("content-length", str(len(body))),
                        *headers.items(),
                    ],
                )
                protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
                # Do not wait until everything is sent: a receiver may respond and close before it has read the body.
                for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                    writer.write(protocol.send(event) or b"")
                response = await _read_head(protocol, reader)
                # The response counts, whatever follows it.
                limit.reschedule(None)
                with suppress(TimeoutError, OSError, h11.ProtocolError):
                    async with asyncio.timeout(BODY_TIMEOUT):
                        await _read_body(protocol, reader)
                return response
            finally:
                # A regular close would wait for a receiver that does not read.
                writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        addresses = await self._addresses()
        loop = asyncio.get_running_loop()
        end = loop.time() + CONNECT_TIMEOUT
        # Names in certificates have no dot at their end.
        name = self._host.rstrip(".") if self._tls is not None else None
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                async with asyncio.timeout((end - loop.time()) / left):
                    return await asyncio.open_connection(address, self._port, ssl=self._tls, server_hostname=name)
            except TimeoutError:
                if left == 1:
                    raise NoResponse(f"no connection within {CONNECT_TIMEOUT:g} s") from None
            except OSError:
                if left == 1:
                    raise
        raise NoResponse("its name has no address that webhooks may be sent to")

    async def _addresses(self) -> list[str]:
        """The allowed addresses of the host."""
        try:
            found = [str(ipaddress.ip_address(self._host))]
        except ValueError:
            found = await self._look_up()
        return [text for text in found if may_reach(ipaddress.ip_address(text), private=self._private)][:ADDRESSES_MAX]

    async def _look_up(self) -> list[str]:
        try:
            return await self._lookup.addresses()
        except TimeoutError:
            raise NoResponse(f"its name could not be looked up within {LOOKUP_TIMEOUT:g} s") from None
        except (socket.gaierror, UnicodeError):
            raise NoResponse("its name cannot be found") from None


async def _read_head(protocol: h11.Connection, reader: asyncio.StreamReader) -> Response:
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            chunk = await reader.read(READ_BYTES)
            if not chunk:
                raise NoResponse("it closed the connection without a response")
            protocol.receive_data(chunk)
        elif isinstance(event, h11.Response):
            retry_after = next((value for name, value in event.headers if name == b"retry-after"), b"")
            return Response(event.status_code, retry_after.decode("latin-1"))


async def _read_body(protocol: h11.Connection, reader: asyncio.StreamReader) -> None:
    read = 0
    while read < BODY_BYTES_MAX:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            chunk = await reader.read(READ_BYTES)
            read += len(chunk)
            protocol.receive_data(chunk)
        elif not isinstance(event, h11.Data):
            return
