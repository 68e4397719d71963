"""Gives memory that is no longer used back to the system: glibc keeps what was freed, for each thread that freed it."""

import asyncio
import ctypes
from collections.abc import Callable
from pathlib import Path

TRIM_INTERVAL = 10.0
"""Seconds between two looks."""

TRIM_MIN = 32 * 1024 * 1024
"""Bytes beyond the least that the process ever had, from which on it may keep some that are free."""


def _trim() -> Callable[[int], int] | None:
    """glibc's malloc_trim; other C libraries keep less, and have none."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        return None
    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t)(("malloc_trim", library))


def _resident() -> int:
    """Bytes that the process has in memory; 0 where that is not known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError, ValueError):
        return 0


async def run() -> None:
    """Give back again and again."""
    trim = _trim()
    if trim is None:
        return
    least = _resident()
    while True:
        await asyncio.sleep(TRIM_INTERVAL)
        least = min(least, _resident())
        if _resident() - least > TRIM_MIN:
            # It holds a lock of the allocator for each thread in turn: not on the event loop.
            await asyncio.to_thread(trim, 0)
