"""The page's files in memory: the server serves exactly the files that are in the folder at its start."""

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headway_server.http.headers import accepts_gzip

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
"""The types of files that are served. Other files in the folder are not."""


class File:
    """An ASGI application for one file, or for a text as if it were a file."""

    def __init__(self, content: bytes, kind: str) -> None:
        self._plain = content
        self._zipped = gzip.compress(content, 9, mtime=0)
        self._headers = {
            "etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
            # Browsers always revalidate, so that page and server have the same version.
            "cache-control": "no-cache",
            "vary": "accept-encoding",
            # Pages of other origins embed <headway-job>, and nothing here is secret.
            "cross-origin-resource-policy": "cross-origin",
            "content-type": kind,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope)
        headers = self._headers
        if headers["etag"] in given.get("if-none-match", ""):
            response = Response(status_code=304, headers=headers)
        elif accepts_gzip(given.get("accept-encoding", "")) and len(self._zipped) < len(self._plain):
            response = Response(self._zipped, headers={**headers, "content-encoding": "gzip"})
        else:
            response = Response(self._plain, headers=headers)
        await response(scope, receive, send)


def served(folder: Path) -> Iterator[tuple[str, File]]:
    """The files of the folder with their paths. `index.html` is `/`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in TYPES:
            name = path.relative_to(folder).as_posix()
            yield "/" if name == "index.html" else f"/{name}", File(path.read_bytes(), TYPES[path.suffix])
