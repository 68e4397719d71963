"""`make conformance`: every case with every client, and a table."""

import argparse
import sys
import time
from fnmatch import fnmatch

from rich.console import Console
from rich.table import Table

from clients.conformance.case import CaseError, load, load_known
from clients.conformance.languages import LANGUAGES
from clients.conformance.page import PAGE, made
from clients.conformance.play import Shared
from clients.conformance.run import Outcomes, run


def main() -> int:
    """Exit status: 0 all as known, 1 something is not, 2 wrong use."""
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
    chosen = [LANGUAGES[name] for name in arguments.languages or LANGUAGES]
    found: dict[str, Outcomes] = {}
    terminal = sys.stderr.isatty()
    with Shared() as shared:
        for language in chosen:
            if language.missing:
                print(f"{language.title}: skipped, {', '.join(language.missing)} is not installed", file=sys.stderr)
                continue
            began, played = time.monotonic(), 0
            try:
                if not arguments.no_build:
                    language.build()
            except RuntimeError as error:
                print(error, file=sys.stderr)
                return 1

            def done() -> None:
                nonlocal played
                played += 1
                if terminal:
                    print(f"\r{language.title}: {played}/{len(cases)}", end="", file=sys.stderr, flush=True)  # noqa: B023

            found[language.name] = run(language, cases, shared, done)
            back = "\r" if terminal else ""
            print(f"{back}{language.title}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    table = Table("case", *(LANGUAGES[name].title for name in found))
    wrong = 0
    for case in cases:
        marks = []
        for language_name, outcomes in found.items():
            failed, expected = bool(outcomes[case.name]), (language_name, case.name) in known
            wrong += failed != expected
            marks.append(
                {(False, False): "[green]✓", (True, True): "[yellow]known"}.get(
                    (failed, expected), "[red]✗" if failed else "[red]works"
                )
            )
        table.add_row(case.name, *marks)
    Console().print(table)
    for language_name, outcomes in found.items():
        for name, fault in outcomes.items():
            reason = known.get((language_name, name))
            if fault and reason is None:
                print(f"{LANGUAGES[language_name].title}, {name}: {fault}")
            elif reason is not None and not fault:
                print(f"{LANGUAGES[language_name].title}, {name} works: take it out of known.yaml")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
