"""Reads the cases from the files of cases/, and known.yaml."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

Data: TypeAlias = "bool | int | float | str | Sequence[Data] | Mapping[str, Data] | None"

FOLDER = Path(__file__).parent / "cases"
KNOWN = Path(__file__).with_name("known.yaml")

RUNNERS = frozenset(
    {"server", "tap", "pause", "see", "wire", "worker", "request_cancel", "report", "answered", "spool"}
)
"""Steps of the runner; all others go to the driver."""


class CaseError(ValueError):
    """A file does not have the form that README.md describes."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a worker or of the runner, and its expected result."""

    verb: str
    arguments: Data
    worker: str = "worker"
    expects: bool = False
    expect: Data = None
    """The pattern of the answer, if `expects`; see `patterns`."""
    error: Mapping[str, Data] | None = None
    """The pattern of the error, if the answer must be one."""
    took: Data = None
    """The pattern of the seconds until the answer."""
    later: str = ""
    """Do not wait for the answer: the step `answered` with this name checks it."""


@dataclass(frozen=True, slots=True)
class Case:
    """The steps of one case, in order."""

    name: str
    title: str
    feature: str
    steps: tuple[Step, ...]

    @property
    def direct(self) -> bool:
        """Whether the case stops or kills the server: the driver then speaks to it directly, without the tap."""
        return any(step.verb == "server" for step in self.steps)


@dataclass(frozen=True, slots=True)
class Known:
    """A case that a client does not pass, and why."""

    reason: str


def load(folder: Path = FOLDER) -> list[Case]:
    """All cases, feature by feature. CaseError."""
    cases = [case for file in sorted(folder.glob("*.yaml")) for case in _read(file)]
    names = [case.name for case in cases]
    if twice := {name for name in names if names.count(name) > 1}:
        raise CaseError(f"cases have the same name: {', '.join(sorted(twice))}")
    return cases


def load_known(file: Path = KNOWN) -> dict[tuple[str, str], Known]:
    """(language, case) → the known exception."""
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
