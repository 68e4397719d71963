"""Patrons from a CSV file, checked, and the table that holds them."""

import csv
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

import peewee

from examples.ledger import Fault

CATEGORIES = frozenset({"ADULT", "CHILD", "STUDENT", "STAFF"})
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


class Patron(NamedTuple):
    """A patron who passed the checks. The names are those of the columns, in the file and in the table."""

    cardnumber: str
    surname: str
    firstname: str
    category: str
    email: str
    birthdate: str


class PatronRow(peewee.Model):
    """A patron."""

    cardnumber = peewee.CharField(primary_key=True)
    surname = peewee.TextField()
    firstname = peewee.TextField()
    category = peewee.CharField()
    email = peewee.TextField()
    """Empty if unknown."""
    birthdate = peewee.CharField()
    """ISO 8601; empty if unknown."""

    class Meta:
        table_name = "patron"


class NoPatronFileError(ValueError):
    """The file as a whole is not what it should be; the message says why."""


class PatronImport:
    """Reads CSV files of patrons into their table (an `examples.worker.Importer`)."""

    name = "Import patrons"
    table: type[peewee.Model] = PatronRow

    def size(self, file: Path) -> int:
        return sum(1 for _ in self.read(file, 0))

    def read(self, file: Path, offset: int) -> Iterator[tuple[int, Patron | Fault]]:
        """Offsets are rows, as a quoted field may span lines. Raises NoPatronFileError."""
        # Bytes that are not UTF-8 come through as surrogates, so that they spoil one row and not the file.
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            rows = csv.reader(stream)
            header = [name.strip().lower() for name in next(rows, [])]
            if missing := [name for name in Patron._fields if name not in header]:
                raise NoPatronFileError(f"{file.name} has no column {', '.join(missing)}")
            for number, row in enumerate(rows, start=1):
                if row and number > offset:
                    yield number, check(header, row, f"{file.name}, row {number}")


def check(header: list[str], row: list[str], place: str) -> Patron | Fault:
    """The patron in a row, or why he or she can't be imported. `place` names a row without a card number."""
    if len(row) != len(header):
        return Fault(place, "WRONG_COLUMNS", f"the row has {len(row)} fields and the header {len(header)}")
    fields = dict(zip(header, (field.strip() for field in row), strict=True))
    patron = Patron(**{name: fields[name] for name in Patron._fields})
    if any(not field.isprintable() for field in patron):
        return Fault(place, "BAD_TEXT", "a field is not UTF-8, or holds control characters")
    if not patron.cardnumber:
        return Fault(place, "NO_CARDNUMBER", "cardnumber is empty")
    place = patron.cardnumber
    if not patron.surname:
        return Fault(place, "NO_SURNAME", "surname is empty")
    if patron.category not in CATEGORIES:
        return Fault(place, "UNKNOWN_CATEGORY", f"{patron.category!r} is none of {', '.join(sorted(CATEGORIES))}")
    if patron.email and not _EMAIL.fullmatch(patron.email):
        return Fault(place, "BAD_EMAIL", f"{patron.email!r} is no e-mail address")
    if patron.birthdate and not _is_past(patron.birthdate):
        return Fault(place, "BAD_BIRTHDATE", f"{patron.birthdate!r} is no past date as YYYY-MM-DD")
    return patron


def _is_past(text: str) -> bool:
    try:
        return len(text) == 10 and date.fromisoformat(text) <= date.today()  # noqa: DTZ011 (a day, wherever)
    except ValueError:
        return False
