"""How the wish that a job end early reaches the task that works on it."""

import asyncio
from contextlib import suppress

from headway._engine.job_state import JobState


class Interruption:
    """Cancels the running task once somebody wants the job to end early; to be made in that task."""

    def __init__(self, job_state: JobState) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task else 0
        self._over = self._happened = False
        job_state.on_cancelled = self._cancelled
        if job_state.cancelled:
            self._loop.call_soon(self._interrupt)

    def end(self, error: BaseException | None) -> bool:
        """The block has ended. Whether `error` is this interruption, and nobody else's cancellation of the task."""
        self._over = True
        if self._task is None or not self._happened:
            return False
        return self._task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError)

    def _cancelled(self) -> None:
        # The loop may be closed meanwhile, and the block with it.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        if self._task is not None and not self._over and not self._happened:
            self._happened = True
            self._task.cancel()
