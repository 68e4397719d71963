"""Limits what callers can make the server hold, in all and for each of them."""

from typing import Self

from headway_server.domain.errors import JobError

SHARE_DIVISOR = 8
"""One holder may hold at most 1/8 of what is still free. So each new holder finds room, however many there are: n
greedy holders take n/(n + 8) of the total. The rule is that of dynamic buffer thresholds in switches (Choudhury and
Hahne, 1998)."""


class Budget:
    """A number of bytes, watches or the like that holders share. A holder is a connection, named by its peer.

    Only the event loop uses it.
    """

    def __init__(self, total: int, error: type[JobError]) -> None:
        self.total = total
        self.used = 0
        self._error = error
        self._held: dict[str, int] = {}

    def held(self, holder: str) -> int:
        """How much this holder holds."""
        return self._held.get(holder, 0)

    def allows(self, holder: str, amount: int) -> bool:
        """Whether `take` would succeed with this amount."""
        free = self.total - self.used
        # Even if the total is small, every holder may have one.
        return amount <= free and (self.held(holder) + amount) * SHARE_DIVISOR <= max(free, SHARE_DIVISOR)

    def take(self, holder: str, amount: int) -> None:
        """Give the holder this much more. Raises the budget's error if the holder's share or the total is exceeded."""
        if not self.allows(holder, amount):
            raise self._error
        self.used += amount
        self._held[holder] = self.held(holder) + amount

    def give_back(self, holder: str, amount: int) -> None:
        """Take this much back from the holder."""
        self.used -= amount
        left = self.held(holder) - amount
        if left:
            self._held[holder] = left
        else:
            self._held.pop(holder, None)


class Share:
    """What one operation takes of a budget: `with Share(budget, holder) as share`. It is all given back at the end."""

    def __init__(self, budget: Budget, holder: str, amount: int = 0) -> None:
        self._budget = budget
        self._holder = holder
        self._amount = 0
        self.add(amount)

    def add(self, amount: int) -> None:
        """Take this much more. Raises the budget's error."""
        if amount:
            self._budget.take(self._holder, amount)
            self._amount += amount

    def drop(self, amount: int) -> None:
        """Give this much back."""
        if amount:
            self._budget.give_back(self._holder, amount)
            self._amount -= amount

    def give_back(self) -> None:
        """Give everything back."""
        self.drop(self._amount)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()
