"""What both imports do alike: read, check, store in batches, and take up where a killed process stopped."""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import peewee

import headway
from examples.ledger import (
    Fault,
    Run,
    TakenOverError,
    advance,
    find_run,
    new_run,
    open_ledger,
    source_of,
    store,
)
from examples.tracker import Tracker

Record = TypeVar("Record", bound=NamedTuple)
Item = TypeVar("Item")
Read = TypeVar("Read", bound=NamedTuple, covariant=True)

BATCH = 100
"""Records committed together."""


class Importer(Protocol[Read]):
    """What differs between imports."""

    name: str
    """What their jobs are called."""
    table: type[peewee.Model]
    """Where the records go; its columns are named as their fields, the first is the key."""

    def size(self, file: Path) -> int:
        """How many records the file holds, broken ones included."""

    def read(self, file: Path, offset: int) -> Iterator[tuple[int, Read | Fault]]:
        """The records from `offset` on, each with the offset of the next. 0 is the first; the rest is the reader's."""


def main(importer: Importer[Record], default_files: Callable[[Path], list[Path]]) -> int:
    """Imports the files of the command line, or the default ones; returns the exit status."""
    parser = argparse.ArgumentParser(description=f"{importer.name}. Start it again with the same command to go on.")
    parser.add_argument("files", nargs="*", type=Path, help="files to import; without any, a sample")
    parser.add_argument("--catalogue", type=Path, required=True, help="SQLite database to import into")
    parser.add_argument("--session", default=os.environ.get("HEADWAY_SESSION", "examples"), help="Headway session")
    parser.add_argument(
        "--rate", type=float, default=math.inf, help="records a second at most, as a slow catalogue would"
    )
    args = parser.parse_args()
    try:
        files = args.files or default_files(args.catalogue.parent)
        database = open_ledger(args.catalogue, importer.table)
        source = source_of(files)
        found = find_run(source)
        run = found or new_run(source, sum(importer.size(file) for file in files))
        with (
            headway.connect() as client,
            Tracker(client, args.session, importer.name, run, resumed=found is not None) as tracker,
        ):
            print(f"job {run.job_id} (attempt {run.attempt}), from record {run.done:,} of {run.size:,}", flush=True)
            import_files(importer, files, run, database, tracker.tell, args.rate)
        tracker.note_end()
    except (OSError, ValueError, peewee.PeeweeException, TakenOverError, headway.JobCancelled) as error:
        print(f"{importer.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(", ".join(f"{name} {count:,}" for name, count in run.counters.items()), f"and {run.failed} bad records")
    if not run.told:
        print("Headway does not know yet; the same command tells it.", file=sys.stderr)
    return 0


def import_files(
    importer: Importer[Record],
    files: Sequence[Path],
    run: Run,
    database: peewee.Database,
    tell: Callable[[], None],
    rate: float = math.inf,
) -> None:
    """Imports what the run has not imported yet, at most `rate` records a second; calls `tell` after each batch."""
    records = _paced(_remaining(importer, files, run), rate)
    while batch := list(islice(records, BATCH)):
        good = [record for _, _, record in batch if not isinstance(record, Fault)]
        faults = [fault for _, _, fault in batch if isinstance(fault, Fault)]
        with database.atomic():
            file, offset, _ = batch[-1]
            advance(run, file, offset, store(importer.table, good), faults)
        tell()


def _paced(records: Iterator[Item], rate: float) -> Iterator[Item]:
    begin = time.monotonic()
    for index, record in enumerate(records):
        time.sleep(max(begin + index / rate - time.monotonic(), 0.0))
        yield record


def _remaining(
    importer: Importer[Record], files: Sequence[Path], run: Run
) -> Iterator[tuple[int, int, Record | Fault]]:
    """Each record still to import, with the index of its file and the offset after it."""
    start = run.file
    for index in range(start, len(files)):
        for offset, record in importer.read(files[index], run.offset if index == start else 0):
            yield index, offset, record
