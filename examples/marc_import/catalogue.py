"""The catalogue: one row a bibliographic record, keyed by its control number."""

from collections.abc import Iterator
from pathlib import Path

import peewee

from examples.ledger import Fault
from examples.marc_import.records import Biblio, check, split


class BiblioRow(peewee.Model):
    """A bibliographic record."""

    control_number = peewee.CharField(primary_key=True)
    """MARC field 001."""
    title = peewee.TextField()
    author = peewee.TextField()
    marc = peewee.BlobField()
    """The record as it came."""

    class Meta:
        table_name = "biblio"


class MarcImport:
    """Reads MARC 21 files into the catalogue (an `examples.worker.Importer`)."""

    name = "Import MARC records"
    table: type[peewee.Model] = BiblioRow

    def size(self, file: Path) -> int:
        return sum(1 for _ in split(file, 0))

    def read(self, file: Path, offset: int) -> Iterator[tuple[int, Biblio | Fault]]:
        """Offsets are bytes."""
        place = offset
        for end, raw in split(file, offset):
            yield end, check(raw, f"{file.name}, byte {place}")
            place = end
