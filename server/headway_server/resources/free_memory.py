"""Returns unused memory to the system: glibc keeps freed memory for each thread that freed it."""

import asyncio
import ctypes
from collections.abc import Callable
from pathlib import Path

TRIM_INTERVAL = 10.0
"""Seconds between two checks."""

TRIM_MIN = 32 * 1024 * 1024
"""Memory is trimmed when the process has this many bytes more than its lowest size so far."""


def _trim() -> Callable[[int], int] | None:
    """glibc's malloc_trim. Other C libraries keep less memory and have no such function."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        return None
    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t)(("malloc_trim", library))


def _resident() -> int:
    """The resident size of the process in bytes; 0 if it is not known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError, ValueError):
        return 0


async def run() -> None:
    """Return unused memory regularly, until cancelled."""
    trim = _trim()
    if trim is None:
        return
    least = _resident()
    while True:
        await asyncio.sleep(TRIM_INTERVAL)
        least = min(least, _resident())
        if _resident() - least > TRIM_MIN:
            # Not on the event loop: it holds a lock of the allocator for each thread in turn.
            await asyncio.to_thread(trim, 0)
