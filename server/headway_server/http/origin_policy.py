"""Protects the HTTP port from pages of other sites, and the server's own page from attacks.

A browser sends any page's requests to a server on loopback. Three headers identify foreign ones: `Host` shows a name
that was rebound to this address, and a page cannot forge `Origin` and `Sec-Fetch-Site`.
"""

import ipaddress
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway_server.domain.errors import JobError, MalformedMessage, MethodUnknown, SiteRefused
from headway_server.http.http_errors import refusal

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Paths for load balancers, which may use any host name. They reveal nothing."""

PRIVATE_PATHS = frozenset({"/metrics"})
"""Paths that no page of another origin may request, although it could not read the reply."""

ADDRESS_LENGTH = 64
"""The longest IP address, in characters."""

HOST_REFUSED = (
    "The Host of the request is not a known name of this server; set its names with --http-hosts (HEADWAY_HTTP_HOSTS)."
)

ORIGIN_REFUSED = "Pages of this origin may not call the server; allow it with --http-origins (HEADWAY_HTTP_ORIGINS)."


class OriginPolicy:
    """Middleware around the whole application."""

    def __init__(self, app: ASGIApp, listen: str, hosts: Collection[str], origins: Collection[str]) -> None:
        self._app = app
        own = _host(listen)
        self._hosts = LOOPBACK | {own} | {host.lower() for host in hosts}
        # An address, unlike a name, cannot be rebound.
        self._any_number = _is_number(own) and ipaddress.ip_address(own.strip("[]")).is_unspecified
        self._origins = frozenset(origins)
        self._headers = {
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "content-security-policy": "; ".join(
                (
                    "default-src 'none'",
                    "script-src 'self'",
                    "style-src 'self'",
                    "img-src 'self' data:",
                    "font-src 'self'",
                    "connect-src 'self'",
                    "manifest-src 'self'",
                    "base-uri 'none'",
                    "form-action 'none'",
                    " ".join(("frame-ancestors 'self'", *sorted(origins))),
                )
            ),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        try:
            self._check(scope, headers)
        except JobError as error:
            # The sender and the server may disagree on where the request ends.
            ambiguous = isinstance(error, MalformedMessage)
            app: ASGIApp = refusal(error, headers={"connection": "close"} if ambiguous else {})
        else:
            app = self._app

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await app(scope, receive, send_safely)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raises SiteRefused, MethodUnknown, MalformedMessage."""
        # A proxy that uses the other header would see another request after this one.
        if "content-length" in headers and "transfer-encoding" in headers:
            raise MalformedMessage("A request has either Content-Length or Transfer-Encoding, not both.")
        # No path here needs escapes: an escaped path may have evaded the rules of a proxy.
        if b"%" in scope["raw_path"]:
            raise MethodUnknown
        if scope["path"] in OPEN_PATHS:
            return
        host = headers.get("host", "").lower()
        if not self._is_ours(_host(host)):
            raise SiteRefused(HOST_REFUSED)
        reads = scope["method"] in ("GET", "HEAD")
        origin = headers.get("origin")
        if origin in self._origins or (reads and scope["path"] not in PRIVATE_PATHS):
            return
        foreign = origin is not None and origin.partition("://")[2].lower() != host
        if foreign or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise SiteRefused(ORIGIN_REFUSED)

    def _is_ours(self, host: str) -> bool:
        return host in self._hosts or (self._any_number and _is_number(host))


def _host(address: str) -> str:
    """The host of `host` or `host:port`."""
    host, separator, port = address.lower().rpartition(":")
    return host if separator and port.isdecimal() else address.lower()


def _is_number(host: str) -> bool:
    if len(host) > ADDRESS_LENGTH:
        return False
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
