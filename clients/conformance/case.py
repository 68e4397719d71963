"""Cases, as they stand in the files of cases/ and in known.yaml."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

Data: TypeAlias = "bool | int | float | str | Sequence[Data] | Mapping[str, Data] | None"

FOLDER = Path(__file__).parent / "cases"
KNOWN = Path(__file__).with_name("known.yaml")

RUNNERS = frozenset({"server", "tap", "pause", "see", "wire", "worker", "wish", "report", "answered", "spool"})
"""Steps that the runner does itself; all others are the driver's."""


class CaseError(ValueError):
    """A file is not what README.md says that it is."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a worker or the runner does, and what must come of it."""

    verb: str
    arguments: Data
    worker: str = "worker"
    expects: bool = False
    expect: Data = None
    """What the answer must look like, if `expects`; see `patterns`."""
    error: Mapping[str, Data] | None = None
    """What the error must look like that the answer must be."""
    took: Data = None
    """What the seconds until the answer must look like."""
    later: str = ""
    """Not waited for: under this name the step `answered` looks at the answer."""


@dataclass(frozen=True, slots=True)
class Case:
    """What one case does, in order."""

    name: str
    title: str
    feature: str
    steps: tuple[Step, ...]

    @property
    def direct(self) -> bool:
        """Whether the server itself is harmed: the driver then speaks to it without anybody in between."""
        return any(step.verb == "server" for step in self.steps)


@dataclass(frozen=True, slots=True)
class Known:
    """A client that does not pass a case, and why."""

    reason: str


def load(folder: Path = FOLDER) -> list[Case]:
    """All cases, feature by feature. CaseError."""
    cases = [case for file in sorted(folder.glob("*.yaml")) for case in _read(file)]
    names = [case.name for case in cases]
    if twice := {name for name in names if names.count(name) > 1}:
        raise CaseError(f"cases have the same name: {', '.join(sorted(twice))}")
    return cases


def load_known(file: Path = KNOWN) -> dict[tuple[str, str], Known]:
    """(language, case) → what is known of it."""
    found = yaml.safe_load(file.read_text()) or {}
    return {(language, case): Known(reason) for language, entries in found.items() for case, reason in entries.items()}


def _read(file: Path) -> list[Case]:
    content = yaml.safe_load(file.read_text())
    try:
        return [
            Case(
                name=case["name"],
                title=case["title"],
                feature=content["feature"],
                steps=tuple(_step(step) for step in case["steps"]),
            )
            for case in content["cases"]
        ]
    except (KeyError, TypeError, CaseError) as error:
        raise CaseError(f"{file.name}: {error}") from error


def _step(entry: Mapping[str, Data]) -> Step:
    verbs = [key for key in entry if key not in ("expect", "error", "took", "later", "by")]
    if len(verbs) != 1:
        raise CaseError(f"a step has one verb, not {verbs}")
    error = entry.get("error")
    if error is not None and not isinstance(error, Mapping):
        raise CaseError("`error` is a mapping")
    return Step(
        verb=verbs[0],
        arguments=entry[verbs[0]],
        worker=str(entry.get("by", "worker")),
        expects="expect" in entry,
        expect=entry.get("expect"),
        error=error,
        took=entry.get("took"),
        later=str(entry.get("later", "")),
    )
