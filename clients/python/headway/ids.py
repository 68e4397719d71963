"""Ids and random delays that a client chooses itself."""

import os
import time


def random_between(low: float, high: float) -> float:
    """A random number between the two. It spreads the retries of many clients."""
    return low + (high - low) * int.from_bytes(os.urandom(4)) / 2**32


def uuid7() -> str:
    """A UUIDv7 (RFC 9562) as 32 lower-case hexadecimal digits: sorts by time to the millisecond."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    high = (random >> 62) & 0xFFF
    low = random & (1 << 62) - 1
    return f"{milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low:032x}"
