"""MARC records to import: the real ones of pymarc's source distribution, or invented ones where it can't be had.

None of them is part of this repository. They are downloaded once, checked, and read from `.cache/`:

- 20 small files of pymarc's own tests (BSD licence): MARC-8 and UTF-8, several scripts, some broken on purpose;
- the first 40,000 records of the Library of Congress's Books All, a file that is in the archive too.
"""

import argparse
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory

import pymarc

from examples.ledger import Fault
from examples.marc_import.records import END_OF_RECORD, check, parse, split

CACHE = Path(__file__).resolve().parents[2] / ".cache"

VERSION = "5.4.0"
SHA256 = "b2016b1674d1956636c99b9bf95b31840c5cb8f22645672a660e66326371b2f3"
BOOKS = "BooksAll.2016.part01.utf8"
BOOKS_KEPT = 40_000


class NoDataError(Exception):
    """The records cannot be had; the message says why, in one line."""


def fetch(cache: Path = CACHE) -> list[Path]:
    """The real records' files, the test files first and the large one last. Raises NoDataError.

    The first time this takes 5 to 30 s: pip downloads 76 MB, and keeps 40 MB of it in `cache`.
    """
    folder = cache / f"pymarc-{VERSION}-{BOOKS_KEPT}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache) as temporary:
            unpacked = Path(temporary, "unpacked")
            unpacked.mkdir()
            _unpack(_download(Path(temporary)), unpacked)
            try:
                unpacked.replace(folder)
            except OSError:
                # Another process was quicker.
                if not folder.is_dir():
                    raise
    return [*sorted(folder.glob("*.dat")), *sorted(folder.glob("*.mrc")), folder / BOOKS]


def generate(file: Path, count: int) -> Path:
    """Writes `count` invented records to `file`; every hundredth lacks its title."""
    with file.open("wb") as out:
        for index in range(count):
            author = pymarc.Subfield("a", f"Author, Number {index % 97}")
            title = pymarc.Subfield("a", f"An invented book, volume {index}")
            fields = [
                pymarc.Field("001", data=f"invented{index:08}"),
                pymarc.Field("100", pymarc.Indicators("1", " "), [author]),
                pymarc.Field("245", pymarc.Indicators("1", "0"), [title]),
            ]
            if index % 100 == 99:
                fields.pop()
            record = pymarc.Record(fields=fields, leader="00000nam a2200000 a 4500")
            out.write(record.as_marc())
    return file


def multiply(files: Sequence[Path], copies: int, file: Path) -> Path:
    """Writes the records of `files` to `file`, `copies` times: each time with control numbers of its own.

    Records that fail the checks are repeated as they are.
    """
    with file.open("wb") as out:
        for copy in range(copies):
            for raw in _records(files):
                out.write(_renumbered(raw, f"-{copy}") if copy else raw)
    return file


def _download(folder: Path) -> Path:
    # pip builds the metadata of what it downloads. Without isolation that takes no further download, but the build
    # backend must be installed; with isolation it works anywhere.
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        f"pymarc=={VERSION}",
        "--no-deps",
        "--no-binary",
        "pymarc",
    ]
    for isolation in (["--no-build-isolation"], []):
        result = subprocess.run(
            [*command, *isolation, "--quiet", "--dest", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode == 0:
            break
    else:
        reason = next((line for line in reversed(result.stderr.splitlines()) if line.strip()), "pip failed")
        raise NoDataError(f"pymarc's source distribution cannot be downloaded: {reason.strip()}")
    archive = folder / f"pymarc-{VERSION}.tar.gz"
    with archive.open("rb") as stream:
        if file_digest(stream, "sha256").hexdigest() != SHA256:
            raise NoDataError(f"{archive.name} is not the file that was expected: its SHA-256 differs")
    return archive


def _unpack(archive: Path, folder: Path) -> None:
    # As a stream: the large file need not be unpacked to its end before the small ones are found.
    with tarfile.open(archive, "r|gz") as members:
        for member in members:
            path = Path(member.name)
            stream = members.extractfile(member)
            if stream is None:
                continue
            if path.name == BOOKS:
                with (folder / BOOKS).open("wb") as out:
                    kept = 0
                    while kept < BOOKS_KEPT and (block := stream.read(1 << 20)):
                        parts = block.split(END_OF_RECORD, BOOKS_KEPT - kept)
                        kept += len(parts) - 1
                        out.write(block if kept < BOOKS_KEPT else block[: len(block) - len(parts[-1])])
            elif path.parent.name == "test" and path.suffix in (".dat", ".mrc"):
                (folder / path.name).write_bytes(stream.read())


def _records(files: Sequence[Path]) -> Iterator[bytes]:
    for file in files:
        for _, raw in split(file, 0):
            # The stump at the end of a file would swallow the next file's first record.
            yield raw if raw.endswith(END_OF_RECORD) else raw + END_OF_RECORD


def _renumbered(raw: bytes, suffix: str) -> bytes:
    found = check(raw, "")
    if isinstance(found, Fault):
        return raw
    record = parse(found.marc)
    record["001"].data = found.control_number + suffix
    record.leader.coding_scheme = "a"
    return record.as_marc()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.marc_import.data", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--copies", type=int, default=1, help="how often to repeat the small files (1)")
    args = parser.parse_args()
    try:
        multiply(fetch()[:-1], args.copies, args.out)
    except NoDataError as error:
        print(f"{error}; writing invented records instead", file=sys.stderr)
        generate(args.out, 50 * args.copies)


if __name__ == "__main__":
    main()
