"""Bounds what callers can make the server hold, in all and for each of them."""

from collections.abc import Iterator
from contextlib import contextmanager

from headway_server.errors import JobError

PART = 8
"""One holder may hold at most this part (1/8) of what is still free. So each new holder finds room, however many there
are: after n greedy ones n/(n + 8) of the total is taken. The rule is that of dynamic buffer thresholds in switches
(Choudhury and Hahne, 1998)."""


class Budget:
    """A number of bytes, watches or the like that holders share. A holder is a connection, by the name of its peer.

    It is used by the event loop alone.
    """

    def __init__(self, total: int, error: type[JobError]) -> None:
        self.total = total
        self.used = 0
        self._error = error
        self._held: dict[str, int] = {}

    def held(self, holder: str) -> int:
        """How much this holder has."""
        return self._held.get(holder, 0)

    def allows(self, holder: str, amount: int) -> bool:
        """Whether `take` would give this much."""
        return (self.held(holder) + amount) * PART <= self.total - self.used

    def take(self, holder: str, amount: int) -> None:
        """Give it this much more. Raises the budget's error if its share, or the total, does not allow it."""
        if not self.allows(holder, amount):
            raise self._error
        self.used += amount
        self._held[holder] = self.held(holder) + amount

    def give_back(self, holder: str, amount: int) -> None:
        """It has this much less."""
        self.used -= amount
        left = self._held[holder] - amount
        if left:
            self._held[holder] = left
        else:
            del self._held[holder]

    @contextmanager
    def lent(self, holder: str, amount: int) -> Iterator[None]:
        """Give it this much more until the end of the block. Raises as `take` does."""
        self.take(holder, amount)
        try:
            yield
        finally:
            self.give_back(holder, amount)
