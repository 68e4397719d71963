"""`make conformance`: every case with every client, and a table."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch

from rich.console import Console
from rich.table import Table

from clients.conformance.case import Case, CaseError, Known, load, load_known
from clients.conformance.languages import LANGUAGES, Language
from clients.conformance.page import PAGE, made
from clients.conformance.play import Shared
from clients.conformance.run import Outcomes, run


def main() -> int:
    """Exit status: 0 everything is as known, 1 something is not, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="python -m clients.conformance", description=__doc__)
    parser.add_argument("languages", nargs="*", metavar="LANGUAGE", help=f"of {', '.join(LANGUAGES)}; all by default")
    parser.add_argument("--cases", default="*", metavar="PATTERN", help="names of cases, or parts of them: 'cancel*'")
    parser.add_argument("--page", action="store_true", help="write the made parts of docs/clients.md, and play nothing")
    parser.add_argument("--no-build", action="store_true", help="the programs are there")
    arguments = parser.parse_args()
    if unknown := set(arguments.languages) - set(LANGUAGES):
        parser.error(f"there is no client in {', '.join(sorted(unknown))}; there are {', '.join(LANGUAGES)}")
    try:
        cases = [case for case in load() if fnmatch(case.name, f"*{arguments.cases}*")]
        known = load_known()
    except CaseError as error:
        parser.error(str(error))
    if arguments.page:
        PAGE.write_text(made(PAGE.read_text(), load(), known))
        return 0
    if not cases:
        parser.error(f"no case has a name like {arguments.cases!r}")
    found: dict[str, Outcomes] = {}
    with Shared() as shared:
        for language in (LANGUAGES[name] for name in arguments.languages or LANGUAGES):
            if language.missing:
                print(f"{language.title}: skipped, {', '.join(language.missing)} is not installed", file=sys.stderr)
                continue
            try:
                if not arguments.no_build:
                    language.build()
            except RuntimeError as error:
                print(error, file=sys.stderr)
                return 1
            found[language.name] = _watched(language, cases, shared)
    _show(cases, found, known)
    return _tell(found, known)


def _watched(language: Language, cases: Sequence[Case], shared: Shared) -> Outcomes:
    """Plays the cases, and shows the progress on a terminal."""
    terminal = sys.stderr.isatty()
    began, played = time.monotonic(), 0

    def done() -> None:
        nonlocal played
        played += 1
        if terminal:
            print(f"\r{language.title}: {played}/{len(cases)}", end="", file=sys.stderr, flush=True)

    outcomes = run(language, cases, shared, done)
    back = "\r" if terminal else ""
    print(f"{back}{language.title}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    return outcomes


def _show(cases: Sequence[Case], found: Mapping[str, Outcomes], known: Mapping[tuple[str, str], Known]) -> None:
    table = Table("case", *(LANGUAGES[name].title for name in found))
    for case in cases:
        table.add_row(case.name, *(_mark(found[name][case.name], (name, case.name) in known) for name in found))
    Console().print(table)


def _mark(fault: str, known: bool) -> str:
    if fault:
        return "[yellow]known" if known else "[red]✗"
    return "[red]works" if known else "[green]✓"


def _tell(found: Mapping[str, Outcomes], known: Mapping[tuple[str, str], Known]) -> int:
    """Prints what is not as it is known to be. Returns the exit status."""
    status = 0
    for language, outcomes in found.items():
        for name, fault in outcomes.items():
            if bool(fault) != ((language, name) in known):
                status = 1
                what = f", {name}: {fault}" if fault else f", {name} works: take it out of known.yaml"
                print(f"{LANGUAGES[language].title}{what}")
    return status


if __name__ == "__main__":
    sys.exit(main())
