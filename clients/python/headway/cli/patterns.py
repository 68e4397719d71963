"""Progress as programs print it: bars, meters and counts, found in whatever else they write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from headway.cli.styles import STYLES, Reading, Style, amount

_LONGEST = 1000
"""Characters of a line that are looked at: its last ones."""
_RIVALS = 16
"""Counts that are followed until one of them is believed."""
_DETOUR = 20
"""Sightings in a row that it takes to leave a count that has not come to its end."""

_Key: TypeAlias = tuple[str, float | None]


@dataclass
class _Track:
    """Sightings of one style that go on from each other."""

    style: Style
    reading: Reading
    seen: int = 1
    moved: bool = False

    @property
    def key(self) -> _Key:
        # Of one style there may be several counts, such as a chapter's number between the pages.
        return self.style.name, self.reading.total

    def goes_on(self, style: Style, reading: Reading) -> bool:
        same = self.key == (style.name, reading.total) or (style.grows and style is self.style)
        return same and reading.done >= self.reading.done

    def add(self, reading: Reading) -> None:
        self.seen += 1
        self.moved = self.moved or reading.done > self.reading.done
        self.reading = reading

    @property
    def over(self) -> bool:
        return self.reading.total is None or self.reading.done >= self.reading.total


class Finder:
    """Finds the progress in the lines of one program, and stays with the count that it has found.

    Only what goes on from there moves it: a stray line never does, nor does it ever fall for one. Another count has
    its turn once the present one is over, or after 20 sightings in a row without the present one. If that one goes on
    after all, then the other was a part of it, as a bar within a bar, and has no turn any more.
    """

    def __init__(self, styles: Sequence[Style] = STYLES) -> None:
        self._styles = styles
        self._chosen: _Track | None = None
        self._left: _Track | None = None
        self._parts = set[_Key]()
        self._rivals = dict[_Key, _Track]()
        self._announced = dict[str, float | None]()

    @property
    def reading(self) -> Reading | None:
        """The progress found last; None before any was."""
        return self._chosen.reading if self._chosen else None

    def line(self, text: str) -> None:
        """Looks at one line, without escape sequences."""
        text = text[-_LONGEST:]
        for style in self._styles:
            if style.announced and (said := style.announced.search(text)):
                self._announced[style.name] = amount(said["total"] or "")
            match = style.expression.search(text)
            reading = style.read(match, self._announced.get(style.name)) if match else None
            if reading is not None:
                self._sighted(style, reading)
                if style.sightings == 1:
                    return

    def _sighted(self, style: Style, reading: Reading) -> None:
        chosen, left = self._chosen, self._left
        if chosen and (chosen.goes_on(style, reading) or (chosen.style is style and style.sightings == 0)):
            chosen.add(reading)
            self._rivals.clear()
        elif chosen and left and left.goes_on(style, reading):
            self._parts.add(chosen.key)
            self._choose(left, reading)
            self._left = None
        elif chosen is None or self._may_follow(chosen, style, reading):
            self._follow(style, reading)

    def _may_follow(self, chosen: _Track, style: Style, reading: Reading) -> bool:
        if chosen.style.instead_of == style.name:
            return False
        return chosen.over or (style.name, reading.total) not in self._parts

    def _follow(self, style: Style, reading: Reading) -> None:
        rival = self._rivals.get((style.name, reading.total))
        if rival and rival.goes_on(style, reading):
            rival.add(reading)
        else:
            rival = self._rivals[style.name, reading.total] = _Track(style, reading)
            if len(self._rivals) > _RIVALS:
                del self._rivals[next(iter(self._rivals))]
        if rival.seen >= self._wanted(style) and (rival.moved or style.sightings < 2):
            chosen = self._chosen
            self._left = chosen if chosen and not chosen.over and chosen.style.name != style.instead_of else None
            self._choose(rival, reading)

    def _choose(self, track: _Track, reading: Reading) -> None:
        track.add(reading)
        self._chosen = track
        self._rivals.clear()

    def _wanted(self, style: Style) -> int:
        chosen = self._chosen
        if chosen is None or chosen.style.name == style.instead_of:
            return style.sightings
        return max(style.sightings, 2) if chosen.over else _DETOUR
