"""Plays cases with a client, several at a time, since they mostly wait."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from clients.conformance.case import Case
from clients.conformance.languages import Language
from clients.conformance.play import CaseFailed, Shared, play

Outcomes = dict[str, str]
"""Case → what went wrong; empty if nothing did."""


def run(
    language: Language, cases: Sequence[Case], shared: Shared, done: Callable[[], object] = lambda: None
) -> Outcomes:
    """Plays the cases; `done` is called after each."""

    def outcome(case: Case) -> str:
        try:
            play(case, language, shared)
        except CaseFailed as fault:
            return str(fault) or "it failed"
        finally:
            done()
        return ""

    with ThreadPoolExecutor(language.at_a_time) as pool:
        return dict(zip((case.name for case in cases), pool.map(outcome, cases), strict=True))
