"""Measures Headway against the limit of its transport and against its peers: `make bench`.

Every figure is the median of interleaved rounds, and a ratio wherever there is something to be compared with in the
same run: other load on the machine moves both. Prints tables as they come, and writes all as JSON.
"""

import argparse
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from benchmarks import figures
from benchmarks.figures import Section

LONGER = ("growth_large",)
"""Only when asked for."""

SECTIONS = (
    "worker",
    "clients",
    "calls",
    "streams",
    "watching",
    "replicas",
    "growth",
    "crowd",
    "overload",
    "start",
    "page",
    "peers",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}, all by default; {LONGER[0]}"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each figure (5)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(".cache/benchmarks/figures.json"),
        help="the JSON file; the tables stand beside it",
    )
    arguments = parser.parse_args()
    unknown = set(arguments.sections) - {*SECTIONS, *LONGER}
    if unknown or arguments.rounds < 1:
        parser.error(f"there is no section {', '.join(sorted(unknown))}" if unknown else "--rounds must be 1 or more")
    about = figures.machine()
    print(f"Python {about['python']} on {about['system']}, {about['cores']} cores, load {about['load']:.1f}")
    found: list[Section] = []
    for name in arguments.sections or SECTIONS:
        print(f"\n… {name}", end="", file=sys.stderr, flush=True)
        began = time.monotonic()
        run: Callable[[int], Section] = import_module(f"benchmarks.{name}").run
        section = run(arguments.rounds)
        section.seconds = time.monotonic() - began
        print(section.show(), flush=True)
        found.append(section)
        figures.write(arguments.output, found, about)
    goals = [row for section in found for row in section.rows if row.met is not None]
    missed = [row.name.strip() for row in goals if not row.met]
    print(f"\n{len(goals) - len(missed)} of {len(goals)} goals met; written to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
