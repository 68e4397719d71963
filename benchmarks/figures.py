"""What a benchmark found: rows of figures, the goals beside them, and how both are printed and kept."""

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Row:
    """One figure over all rounds, with the goal that its median has to reach, if it has one."""

    name: str
    rounds: Sequence[float]
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        return median(self.rounds)

    @property
    def goal(self) -> str:
        if self.at_least is not None:
            return f"≥ {number(self.at_least)}"
        return f"≤ {number(self.at_most)}" if self.at_most is not None else ""

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; None without one."""
        if self.at_least is not None:
            return self.median >= self.at_least
        return self.median <= self.at_most if self.at_most is not None else None

    def as_json(self) -> dict[str, object]:
        found: dict[str, object] = {"name": self.name, "unit": self.unit, "median": self.median}
        found |= {"min": min(self.rounds), "max": max(self.rounds), "rounds": list(self.rounds)}
        if self.goal:
            found |= {"goal": self.goal, "met": self.met}
        return found


@dataclass(slots=True)
class Section:
    """What one benchmark found, what it has to say of it, and what it could not measure."""

    name: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(
        self,
        name: str,
        rounds: Sequence[float],
        unit: str = "",
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        self.rows.append(Row(name, rounds, unit, at_least, at_most))

    def add_ratio(
        self,
        name: str,
        ours: Sequence[float],
        theirs: Sequence[float],
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """The ratio of each round, so that what disturbs a round disturbs both."""
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        self.add(name, ratios, "×", at_least=at_least, at_most=at_most)

    def show(self) -> str:
        lines = [f"\n{self.name}  ({self.seconds:.0f} s)"]
        lines.append(f"  {'':58} {'median':>10} {'min':>10} {'max':>10}  {'unit':10} goal")
        for row in self.rows:
            mark = {True: "met", False: "MISSED", None: ""}[row.met]
            figures = " ".join(f"{number(value):>10}" for value in (row.median, min(row.rounds), max(row.rounds)))
            lines.append(f"  {row.name:58} {figures}  {row.unit:10} {row.goal} {mark}".rstrip())
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  not measured: {reason}" for reason in self.skipped]
        return "\n".join(lines)

    def as_markdown(self) -> str:
        """The same as `show`, for docs/performance.md."""
        lines = [f"### {self.name}", "", "| | median | min | max | unit | goal |", "|---|--:|--:|--:|---|---|"]
        for row in self.rows:
            name = row.name.replace("|", "\\|")
            name = f"&nbsp;&nbsp;{name.strip()}" if name.startswith(" ") else name
            mark = {True: "met", False: "**missed**", None: ""}[row.met]
            figures = " | ".join(number(value) for value in (row.median, min(row.rounds), max(row.rounds)))
            lines.append(f"| {name} | {figures} | {row.unit} | {f'{row.goal} {mark}'.strip()} |")
        notes = [*self.notes, *[f"Not measured: {reason}" for reason in self.skipped]]
        return "\n".join([*lines, "", *[f"- {note}" for note in notes], ""])

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "seconds": round(self.seconds, 1),
            "rows": [row.as_json() for row in self.rows],
            "notes": self.notes,
            "skipped": self.skipped,
        }


def number(value: float | None) -> str:
    """Three digits that mean something, and thousands apart."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def machine() -> dict[str, object]:
    """Where and beside what the figures were taken."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def write(path: Path, sections: Sequence[Section], about: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": about, "sections": [section.as_json() for section in sections]}
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text("\n".join(section.as_markdown() for section in sections))
