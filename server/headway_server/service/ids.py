"""New job ids: UUIDv7 (RFC 9562). They sort by their time of creation."""

import secrets

from headway_server.resources.clock import Clock


class Ids:
    """Makes ids. The ids of one server increase even within a millisecond."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def __call__(self) -> str:
        """32 lower-case hexadecimal digits."""
        # 48 bits of milliseconds, then 74 random bits: 12 before the variant and 62 after it.
        value = self._clock.now() // 1000 << 74 | secrets.randbits(74)
        if value <= self._last:
            value = self._last + 1 + secrets.randbits(32)
        self._last = value
        high, middle, low = value >> 74, value >> 62 & 0xFFF, value & (1 << 62) - 1
        return f"{high << 80 | 0x7 << 76 | middle << 64 | 0b10 << 62 | low:032x}"
