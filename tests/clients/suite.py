"""The tests of every client: the cases of clients/conformance, and its own tests and style."""

import os
import subprocess
from collections.abc import Iterator
from typing import ClassVar

import pytest

from clients.conformance.case import Case, load, load_known
from clients.conformance.languages import LANGUAGES, Language
from clients.conformance.play import Shared
from clients.conformance.run import Outcomes, run
from tests.conftest import missing

CASES = load()
KNOWN = load_known()


def ready(language: Language) -> None:
    """Skips if a toolchain is missing; under CI that is a failure. Builds what is not built."""
    if language.missing:
        missing(f"{', '.join(language.missing)}, for the {language.title} client,")
    language.build()


class ClientSuite:
    """The tests of one client; `test_case` runs once a case."""

    name: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def language(cls) -> Language:
        language = LANGUAGES[cls.name]
        ready(language)
        return language

    @pytest.fixture(scope="class")
    @classmethod
    def outcomes(cls, language: Language) -> Iterator[Outcomes]:
        # All at the same time: cases mostly wait.
        with Shared() as shared:
            yield run(language, CASES, shared)

    def test_case(self, case: Case, outcomes: Outcomes) -> None:
        fault, known = outcomes[case.name], KNOWN.get((self.name, case.name))
        if known is None:
            assert not fault, fault
        else:
            assert fault, f"{case.name} works after all: take it out of known.yaml"


class Toolchain(ClientSuite):
    """A client with tools of its own."""

    def test_its_own_tests(self, language: Language) -> None:
        make(language, "test")

    def test_its_style(self, language: Language) -> None:
        make(language, "lint")


def make(language: Language, target: str) -> None:
    done = subprocess.run(
        ["make", "-C", str(language.folder), target], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}{done.stderr[-6000:]}"
