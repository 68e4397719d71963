"""What an update costs a worker in each language, without a server, and in that language's popular progress bar."""

import json
import os
import subprocess
from collections import defaultdict
from dataclasses import dataclass

from benchmarks.figures import Section
from clients.conformance.languages import LANGUAGES, ROOT, Language

GOALS = {"go": 100, "java": 100, "rust": 100, "node": 100, "python": 250, "perl": 1000}
"""Nanoseconds that setting the progress may take."""

SET = "set progress"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a bench."""

    what: str
    ns: float
    of: str = ""
    """The progress bar that did it; empty: the client."""


def run(rounds: int) -> Section:
    section = Section("What an update costs in each language, without a server, loop included")
    chosen = []
    for name in GOALS:
        language = LANGUAGES[name]
        if language.missing:
            section.skipped.append(f"{language.title}: {', '.join(language.missing)} is not installed")
        else:
            language.build()
            chosen.append(language)
    ours: dict[tuple[str, str], list[float]] = defaultdict(list)
    bars: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(rounds):
        for language in chosen:
            for figure in measured(language):
                found = bars if figure.of else ours
                found[language.name, figure.of or figure.what].append(figure.ns)
    for language in chosen:
        for (name, what), values in ours.items():
            if name == language.name:
                section.add(f"{language.title}, {what}", values, "ns", at_most=GOALS[name] if what == SET else None)
        for (name, bar), values in bars.items():
            if name == language.name:
                section.add(f"  {bar}, the same", values, "ns")
                section.add_ratio(f"  {language.title}, {SET}: of {bar}", ours[name, SET], values)
    return section


def measured(language: Language) -> list[Figure]:
    """The figures of one run of its bench. RuntimeError if it fails."""
    # Nothing listens there, and what is counted for nobody shall not be kept.
    nobody = {"HEADWAY_TARGET": "127.0.0.1:9", "HEADWAY_SESSION": "bench", "HEADWAY_SPOOL": ""}
    done = subprocess.run(
        language.bench, cwd=ROOT, env=os.environ | nobody, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the bench of the {language.title} client failed: {done.stderr[-2000:]}")
    return [Figure(**json.loads(line)) for line in done.stdout.splitlines()]
