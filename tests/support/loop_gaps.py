"""Fails a test in which a server's event loop stood still: nobody else would have been answered."""

import weakref
from typing import Protocol

GAP_MAX = 0.1
"""Seconds."""


class Server(Protocol):
    """A running server whose event loop is looked at."""

    gap_max: float
    """Seconds that it may stand still."""

    def worst_gap(self) -> float:
        """The longest gap since the start (s), as far as the server itself is the cause; 0 if it cannot be asked."""
        ...


_servers: weakref.WeakKeyDictionary[Server, float] = weakref.WeakKeyDictionary()
_found: list[float] = []


def watch(server: Server) -> None:
    """Look at this server after each test."""
    _servers[server] = 0.0


def look(server: Server) -> None:
    """Look at it now, for it is about to end."""
    gap = server.worst_gap()
    if gap > max(server.gap_max, _servers.get(server, 0.0)):
        _found.append(gap)
        _servers[server] = gap


def check() -> None:
    """Raise AssertionError if a loop stood still since the last check."""
    for server in list(_servers):
        look(server)
    found = sorted(_found)
    _found.clear()
    assert not found, f"the server's event loop stood still for {', '.join(f'{gap:.2f} s' for gap in found)}"
