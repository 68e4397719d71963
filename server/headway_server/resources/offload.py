"""Work that takes too long for the event loop: threads do it, one piece after the other.

One thread for requests and one for answers, so that the loop shares the interpreter's lock with few competitors, no
read waits for what others write, and few large requests are expanded at once, however many callers send some.
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
        """What the work returns or raises. It must not wait for anything."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*arguments, **named))


read_off_loop = Offload("requests")
"""Reads requests: decompresses, parses, converts them."""

write_off_loop = Offload("answers")
"""Writes answers: converts, serialises, compresses them."""
