"""`headway open`: the server's page in the browser, with the session and the token of this shell."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
import webbrowser
from argparse import ArgumentTypeError, Namespace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from urllib.parse import quote, urlencode, urlsplit

from headway.cli.escaping import warn
from headway.cli.exit_codes import OK, UNAVAILABLE
from headway.target import Target, open_channel

PORT = 8080
"""The default port of the page."""
CALL_TIMEOUT = 5.0
"""Seconds for the server, or the page, to answer."""
BROWSER_TIMEOUT = 30.0
"""Seconds to wait for the browser."""


def open_page(args: Namespace, target: Target, session: str) -> int:
    """Opens the page, at a job's own if `args.job` names one; prints its address, with the session in it, only if asked
    to or where there is no browser.

    The session and the token stand in the address behind its #, which no server sees; the page takes them out of there.
    Exit status: 0, or 4 if no page answers. ValueError if the page's address or the job's id is malformed.
    """
    job = (args.job or "").lower()
    if job and not re.fullmatch(r"[0-9a-f]{32}", job):
        raise ArgumentTypeError("a job's id is 32 hexadecimal digits")
    if given := args.page or os.environ.get("HEADWAY_PAGE"):
        page = _page(given)
    else:
        port = _port(target)
        if port == 0:
            warn(f"the server at {target.address} has no page, because it was started with --http ''")
            return UNAVAILABLE
        if port is None and not args.print:
            warn(
                f"no server answers at {target.address}; start one with `headway serve`, or name another with --target"
            )
            return UNAVAILABLE
        if port is None:
            warn(f"no server answers at {target.address}: assuming that its page has port {PORT}")
        host = target.address.rpartition(":")[0]
        page = f"{'https' if target.tls else 'http'}://{host}:{port or PORT}/"
    secret = {"session": session, "token": target.token or "", "job": job}
    address = page
    if session or target.token:
        address += "#" + urlencode({name: text for name, text in secret.items() if text}, quote_via=quote, safe="")
    elif job:
        address += f"#/job/{job}"
    if args.print:
        print(address)
        return OK
    if not _answers(page):
        warn(f"no page answers at {page}; start it with `headway serve`, or name another with --page")
        return UNAVAILABLE
    if _show(address):
        print(f"opened {page}")
    else:
        warn("no browser has opened; open this address in one")
        print(address)
    return OK


def _port(target: Target) -> int | None:
    """The port of the page as the server tells it; 0 without a page, None if no server answers. ValueError if the CA
    file cannot be read."""
    import grpc

    with open_channel(target, retry=False) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
        try:
            _, call = check.with_call(b"", timeout=CALL_TIMEOUT)
        except grpc.RpcError:
            return None
    told = dict(call.trailing_metadata() or ()).get("headway-http-port", "")
    # An older server does not tell.
    return int(told) if isinstance(told, str) and told.isdigit() else PORT


def _page(given: str) -> str:
    """The page's address, with a slash at its end. ArgumentTypeError if it is malformed."""
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in given:
        raise ArgumentTypeError(f"the page's address must be such as http://127.0.0.1:{PORT}/, not {given!r}")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"


def _answers(page: str) -> bool:
    parts = urlsplit(page)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), CALL_TIMEOUT).close()
    except (OSError, ValueError):
        return False
    return True


def _show(address: str) -> bool:
    """Whether a browser has fetched the address.

    Every user of this machine can read the command line that starts a browser. So the browser gets the address of a
    server in this process, which redirects only the browser of this user to the page.
    """
    if not _has_browser():
        return False
    path = f"/{secrets.token_urlsafe(32)}"
    once, came = Lock(), Event()

    class _Redirect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if (
                self.path != path
                or not _is_own(self.client_address[1], self.connection.getsockname()[1])
                or not once.acquire(blocking=False)
            ):
                self.send_error(404)
                return
            self.send_response(302)
            for name, text in (("Location", address), ("Cache-Control", "no-store"), ("Content-Length", "0")):
                self.send_header(name, text)
            self.end_headers()
            came.set()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), _Redirect) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            return webbrowser.open(f"http://127.0.0.1:{server.server_port}{path}") and came.wait(BROWSER_TIMEOUT)
        finally:
            server.shutdown()


def _has_browser() -> bool:
    """Whether a graphical browser is possible. Browsers in a terminal cannot show the page."""
    if sys.platform != "linux":
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _is_own(port: int, server_port: int) -> bool:
    """Whether the connection between these local ports belongs to this user. Only Linux can tell; True elsewhere."""
    try:
        rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return True
    # An old connection may have used the same port, with another program.
    wanted = [f"0100007F:{port:04X}", f"0100007F:{server_port:04X}"]
    owners = [fields[7] for fields in map(str.split, rows) if fields[1:3] == wanted]
    return owners == [str(os.getuid())]
