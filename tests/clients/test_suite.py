"""The suite itself: it finds clients with faults, and its files have the right form."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients.conformance.case import Data
from clients.conformance.languages import LANGUAGES, Language
from clients.conformance.patterns import difference
from clients.conformance.play import CaseFailed, Shared, play
from tests.clients.planted import FAULTS
from tests.clients.suite import CASES, KNOWN

PLANTED = Path(__file__).with_name("planted.py")

NOTICED_BY = {
    "renumbers": ("lost-answers", "two different|is not 8|came after"),
    "counts_twice": ("record-errors", "is not"),
    "knows_no_pace": ("slow-pace", "reports: .* is not at most 2"),
    "gives_no_heartbeat": ("heartbeats", "heartbeats: .* is not at least"),
    "waits_for_ever": ("away-all-along", "did not answer|seconds"),
    "tells_secrets": ("finish-with-results", "the session stands in"),
    "leaves_nothing": ("spool-and-flush", "in the spool, files: 0 is not 1"),
}


class Planted(Language):
    """The Python client with the fault that `python` names."""

    @property
    def driver(self) -> list[str]:
        return [sys.executable, "-m", "tests.clients.planted", self.python]


def complaint_of(fault: str, shared: Shared) -> str:
    name, _ = NOTICED_BY[fault]
    (case,) = (case for case in CASES if case.name == name)
    planted = Planted("planted", "Planted", python=fault)
    try:
        play(case, planted, shared)
    except CaseFailed as complaint:
        return str(complaint)
    return ""


@pytest.fixture(scope="module")
def complaints() -> dict[str, str]:
    # All at the same time: cases mostly wait.
    with Shared() as shared, ThreadPoolExecutor(len(FAULTS)) as pool:
        return dict(zip(FAULTS, pool.map(lambda fault: complaint_of(fault, shared), FAULTS), strict=True))


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_noticed(complaints: dict[str, str], fault: str) -> None:
    assert re.search(NOTICED_BY[fault][1], complaints[fault])


def test_known_exceptions_are_of_cases_that_there_are() -> None:
    names = {case.name for case in CASES}
    for (language, case), known in KNOWN.items():
        assert language in LANGUAGES
        assert case in names
        assert known.reason


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (3, 3),
        ({"a": 1}, {"a": 1, "b": 2}),
        ([1, {"at_least": 2}], [1, 2]),
        ({"matches": "^a"}, "abc"),
        ({"not": 3}, 4),
        ({"length": {"at_most": 2}}, "ab"),
        ({"any": True}, 0),
        (None, None),
    ],
)
def test_what_fits(pattern: Data, value: object) -> None:
    assert difference(pattern, value) == ""


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (3, 4),
        (1, True),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, None),
        ([1], [1, 2]),
        ([], None),
        ({"at_least": 3}, 2),
        ({"at_most": 3}, "text"),
        ({"matches": "^b"}, "abc"),
        ({"not": {"at_least": 3}}, 4),
        ({"length": 2}, [1]),
        ({"any": True}, None),
        (None, 0),
    ],
)
def test_what_does_not_fit(pattern: Data, value: object) -> None:
    assert difference(pattern, value)
