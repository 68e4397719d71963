"""What is kept to be found quickly, within a number of bytes."""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

ENTRY_OVERHEAD = 300
"""Bytes that an entry takes beside what it holds."""

ENTRY_DIVISOR = 64
"""By default an entry of more than this part (1/64) of the total is not kept."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """The entries that were put last, of at most `total` bytes in all. Any thread may use it.

    Whoever puts an entry states its size, with that of its key: what callers send must be checked for its length before
    it is looked up, because the look-up hashes all of it.
    """

    def __init__(self, total: int, part: int = ENTRY_DIVISOR) -> None:
        self._total = total
        self._part = part
        self._used = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = Lock()

    @property
    def used(self) -> int:
        """Bytes that the entries take."""
        return self._used

    def get(self, key: K) -> V | None:
        """The value, or None if it is not kept."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: K, value: V, size: int) -> bool:
        """Keep the value, of `size` bytes together with its key, if that is not too much; whether it is kept."""
        size += ENTRY_OVERHEAD
        if size * self._part > self._total:
            return False
        with self._lock:
            _, before = self._entries.pop(key, (None, 0))
            self._entries[key] = value, size
            self._used += size - before
            while self._used > self._total:
                _, (_, freed) = self._entries.popitem(last=False)
                self._used -= freed
        return True
