"""Reading MARC 21 files record by record, and checking each."""

import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pymarc
from pymarc import marc8

from examples.ledger import Fault

END_OF_RECORD = b"\x1d"
LONGEST_RECORD = 1 << 20
"""Bytes. The format ends at 99,999; more than this without an end is no MARC."""

RECORD_TYPES = frozenset("acdefgijkmoprt")
"""Leader position 6: books, maps, scores, recordings, …"""

# pymarc repairs what it can (a third indicator, a character that MARC-8 does not know) and says so, partly
# straight to standard error: thousands of lines, in the midst of whatever the terminal shows.
logging.getLogger("pymarc").setLevel(logging.ERROR)
vars(marc8)["sys"] = SimpleNamespace(stderr=io.StringIO())


class Biblio(NamedTuple):
    """A bibliographic record that passed the checks. The names are those of the table's columns."""

    control_number: str
    title: str
    author: str
    marc: bytes


def split(file: Path, offset: int) -> Iterator[tuple[int, bytes]]:
    """Each record's bytes from the byte `offset` on, with the offset where the next one begins.

    Splits at the record terminator, whatever length a record claims: a broken one takes no others with it.
    """
    with file.open("rb") as stream:
        stream.seek(offset)
        rest = b""
        while block := stream.read(LONGEST_RECORD):
            *records, rest = (rest + block).split(END_OF_RECORD)
            for record in records:
                offset += len(record) + 1
                yield offset, record + END_OF_RECORD
            if len(rest) > LONGEST_RECORD:
                offset += len(rest)
                yield offset, rest
                rest = b""
        if rest.strip():
            yield offset + len(rest), rest


def check(raw: bytes, place: str) -> Biblio | Fault:
    """The record in `raw`, or why it can't be imported. `place` names it if it does not name itself."""
    raw = raw.lstrip(b"\r\n ")
    if not raw.endswith(END_OF_RECORD):
        return Fault(place, "TRUNCATED", "the file ends within the record")
    try:
        record = parse(raw)
    except UnicodeDecodeError as error:
        return Fault(place, "BAD_ENCODING", f"byte {error.object[error.start]:#04x} is not {error.encoding}")
    except pymarc.exceptions.PymarcException as error:
        return Fault(place, _code(error), str(error))
    except (ValueError, IndexError) as error:
        return Fault(place, "BAD_STRUCTURE", str(error))
    control = record.get("001")
    number = (control.data or "").strip() if control is not None else ""
    place = number or place
    if record.leader.type_of_record not in RECORD_TYPES:
        return Fault(place, "BAD_LEADER", f"type of record {record.leader.type_of_record!r} is not MARC 21")
    if not number:
        return Fault(place, "NO_CONTROL_NUMBER", "field 001 is missing or empty")
    if not record.title:
        return Fault(place, "NO_TITLE", "field 245 is missing or empty")
    return Biblio(number, record.title, record.author or "", raw)


def parse(raw: bytes) -> pymarc.Record:
    """The record in `raw`. Raises what pymarc raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pymarc.Record(raw, hide_utf8_warnings=True)


def _code(error: pymarc.exceptions.PymarcException) -> str:
    """RecordDirectoryInvalid → RECORD_DIRECTORY_INVALID."""
    name = type(error).__name__
    return "".join("_" + char if char.isupper() else char for char in name).lstrip("_").upper()
