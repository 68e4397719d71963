"""Passes a cancellation request on to the asyncio task that works on the job."""

import asyncio
from contextlib import suppress

from headway._engine.job_state import JobState


class Interruption:
    """Cancels the current task when a cancellation request arrives. Create it in that task."""

    def __init__(self, job_state: JobState) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task else 0
        self._over = self._happened = False
        job_state.on_cancelled = self._cancelled
        if job_state.cancelled:
            self._loop.call_soon(self._interrupt)

    def end(self, error: BaseException | None) -> bool:
        """Called at the end of the block. Returns whether `error` is this interruption and no other cancellation of the
        task."""
        self._over = True
        if self._task is None or not self._happened:
            return False
        return self._task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError)

    def _cancelled(self) -> None:
        # The loop may be closed already.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        if self._task is not None and not self._over and not self._happened:
            self._happened = True
            self._task.cancel()
