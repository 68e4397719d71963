"""Finds the progress that programs print: bars, meters and counts among other output."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from headway.cli.run.progress_styles import STYLES, Reading, Style, amount

_LONGEST = 1000
"""Characters of a line that are looked at: its last ones."""
_RIVALS = 16
"""Counts that are followed until one of them is accepted."""
_DETOUR = 20
"""Sightings in a row that it takes to leave a count that has not come to its end."""
_GROWTH = 3
"""Sightings in a row of a count with a greater total that it takes to be the same one, whose total grows."""

_NUMBERS = re.compile(r"\d[\d.,]*")
_SPACED = re.compile(r"(?<![\w.,:/-])(\d{1,3}(?: \d{3})+)( ?/ ?| (?:out )?of )(\d{1,3}(?: \d{3})+)(?! ?[\d/])")
"""Thousands apart by spaces, on both sides: with them on one side only, there may be three numbers."""

_Key: TypeAlias = tuple[str, float | None]


def _key(style: Style, reading: Reading) -> _Key:
    # Of one style there may be several counts, such as a chapter's number between the pages.
    return style.completes or style.name, reading.total


@dataclass(frozen=True)
class _Sighting:
    """One reading, and where it stood."""

    style: Style
    reading: Reading
    label: str
    """What stood before it in its line, without numbers."""
    below: bool
    """Whether it was drawn below something else, to which the cursor went back."""

    @property
    def key(self) -> _Key:
        return _key(self.style, self.reading)


class _Track:
    """Sightings of one style that go on from each other."""

    def __init__(self, first: _Sighting) -> None:
        self.style = first.style
        self.reading = first.reading
        self.key = first.key
        self.label = first.label
        self.below = first.below
        self.seen = 1
        self.moved = False
        self.grows = first.style.grows

    def goes_on(self, sighting: _Sighting) -> bool:
        same = self.key == sighting.key or (self.grows and self.may_grow(sighting))
        return same and sighting.reading.done >= self.reading.done

    def may_grow(self, sighting: _Sighting) -> bool:
        """Whether it may be the same count, of which more is to be done than was thought."""
        if self.style.grows:
            return sighting.style is self.style
        if sighting.style is not self.style or (sighting.label, sighting.below) != (self.label, self.below):
            return False
        # A count that may be anything else needs a word before it to be known by.
        old, new = self.reading.total, sighting.reading.total
        known = self.style.sightings == 1 or bool(self.label.strip(" [(#"))
        return (
            known and old is not None and new is not None and new > old and sighting.reading.done >= self.reading.done
        )

    def add(self, sighting: _Sighting) -> None:
        self.seen += 1
        self.moved = self.moved or sighting.reading.done > self.reading.done
        if self.key != sighting.key and not sighting.style.completes:
            self.key, self.grows = sighting.key, True
        self.reading = sighting.reading

    @property
    def over(self) -> bool:
        return self.reading.total is None or self.reading.done >= self.reading.total


class Finder:
    """Finds the progress in the lines of one program and keeps following the count that it has found.

    Only what goes on from there moves it: a stray line never does, nor does it ever fall for one. Another count has
    its turn once the present one is over, or after 20 sightings in a row without the present one. If that one goes on
    after all, then the others were parts of it, as bars within a bar, and have no turn before it is over. What is drawn
    below another bar is known as a part of that at once.
    """

    def __init__(self, styles: Sequence[Style] = STYLES) -> None:
        self._styles = styles
        self._chosen: _Track | None = None
        self._left: _Track | None = None
        self._has_parts = False
        """Whether the chosen count went on after another had its turn."""
        self._rivals: list[_Track] = []
        self._announced = dict[str, float | None]()

    @property
    def reading(self) -> Reading | None:
        """The progress found last; None before any was."""
        return self._chosen.reading if self._chosen else None

    def line(self, text: str, *, below: bool = False) -> None:
        """Looks at one line, without escape sequences. `below`: the cursor went back up from it."""
        text = _SPACED.sub(_without_spaces, text[-_LONGEST:])
        for style in self._styles:
            if style.announced and (said := style.announced.search(text)):
                self._announce(style, amount(said["total"] or ""))
            match = style.expression.search(text)
            reading = style.read(match, self._announced.get(style.name)) if match else None
            if match is not None and reading is not None:
                label = _NUMBERS.sub("#", text[: match.start()]).strip()
                self._sighted(_Sighting(style, reading, label, below))
                if style.sightings == 1 and not style.completes:
                    return

    def _announce(self, style: Style, total: float | None) -> None:
        """Of several inputs the longest counts."""
        before = self._announced.get(style.name)
        self._announced[style.name] = (
            max(total, before) if total is not None and before is not None else total or before
        )

    def _sighted(self, sighting: _Sighting) -> None:
        chosen, left = self._chosen, self._left
        if chosen and (chosen.goes_on(sighting) or (chosen.style is sighting.style and chosen.style.sightings == 0)):
            chosen.add(sighting)
            self._rivals = [rival for rival in self._rivals if chosen.below and not rival.below]
        elif chosen and left and left.goes_on(sighting):
            self._choose(left, sighting)
            self._left, self._has_parts = None, True
        elif self._may_follow(sighting):
            self._follow(sighting)

    def _may_follow(self, sighting: _Sighting) -> bool:
        chosen, style = self._chosen, sighting.style
        if chosen is None:
            # What stands above it may begin to move.
            return not (sighting.below and any(not rival.below and rival.style is style for rival in self._rivals))
        if style.completes or chosen.style.instead_of == style.name:
            return False
        if sighting.below and not chosen.below:
            return False
        return chosen.over or not self._has_parts or chosen.may_grow(sighting)

    def _follow(self, sighting: _Sighting) -> None:
        if sighting.style.completes:
            return
        rival = next((rival for rival in self._rivals if rival.goes_on(sighting)), None)
        rival = rival or next((rival for rival in self._rivals if rival.may_grow(sighting)), None)
        if rival:
            rival.add(sighting)
        else:
            rival = _Track(sighting)
            self._rivals = [*(one for one in self._rivals if one.key != rival.key), rival][-_RIVALS:]
        if rival.seen >= self._wanted(sighting) and (rival.moved or sighting.style.sightings < 2):
            chosen = self._chosen
            replaced = chosen is None or chosen.over or chosen.style.name == sighting.style.instead_of
            grown = chosen is not None and chosen.may_grow(sighting)
            self._left = None if replaced or grown else chosen
            self._has_parts = self._has_parts and grown
            rival.grows = rival.grows or grown
            self._choose(rival, sighting)

    def _choose(self, track: _Track, sighting: _Sighting) -> None:
        track.add(sighting)
        self._chosen = track
        self._rivals.clear()

    def _wanted(self, sighting: _Sighting) -> int:
        chosen, style = self._chosen, sighting.style
        if chosen is None or chosen.style.name == style.instead_of or (chosen.below and not sighting.below):
            return style.sightings
        if chosen.over:
            return max(style.sightings, 2)
        return max(style.sightings, _GROWTH) if chosen.may_grow(sighting) else _DETOUR


def _without_spaces(found: re.Match[str]) -> str:
    return found[1].replace(" ", "") + found[2] + found[3].replace(" ", "")
