"""A cache that is limited in bytes."""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

ENTRY_OVERHEAD = 300
"""Bytes that an entry takes, without its key and value."""

ENTRY_DIVISOR = 64
"""By default, the cache does not keep entries of more than 1/64 of the total."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Keeps the entries that were put last, up to `total` bytes in all. Any thread may use it.

    `put` takes the size of an entry with its key. Check the length of a caller's text before you look it up: a look-up
    hashes the whole text.
    """

    def __init__(self, total: int, part: int = ENTRY_DIVISOR) -> None:
        self._total = total
        self._part = part
        self._used = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = Lock()

    @property
    def used(self) -> int:
        """Bytes of all entries."""
        return self._used

    def get(self, key: K) -> V | None:
        """The value, or None if it is not in the cache."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: K, value: V, size: int) -> bool:
        """Keep the value, unless it is too large. `size` is its size with its key, in bytes. Returns whether it is
        kept."""
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
