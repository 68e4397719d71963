"""Runs work that takes too long for the event loop in threads, one piece after the other.

There is one thread for requests and one for replies. So the loop shares the interpreter's lock with few threads, no
request waits for replies to others, and few large requests are expanded at a time, however many callers send some.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


class Offload:
    """One thread, for all event loops of the process."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, f"headway-{name}")

    async def __call__(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run the work, which must not wait for anything. Returns or raises what the work does."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*arguments, **named))


read_off_loop = Offload("requests")
"""Decompresses, parses and converts requests."""

write_off_loop = Offload("answers")
"""Converts, serialises and compresses replies."""
