"""Reading and checking patrons."""

from pathlib import Path

import pytest

from examples.ledger import Fault
from examples.patron_import import patrons
from examples.patron_import.patrons import NoPatronFileError, Patron, PatronImport

SAMPLE = Path(patrons.__file__).with_name("patrons.csv")
HEADER = "cardnumber,surname,firstname,category,email,birthdate\n"


def read(file: Path, offset: int = 0) -> list[tuple[int, Patron | Fault]]:
    return list(PatronImport().read(file, offset))


def test_the_sample() -> None:
    rows = read(SAMPLE)
    assert len(rows) == PatronImport().size(SAMPLE) == 18
    assert [row.code for _, row in rows if isinstance(row, Fault)] == [
        "NO_CARDNUMBER",
        "BAD_EMAIL",
        "UNKNOWN_CATEGORY",
        "BAD_BIRTHDATE",
        "NO_SURNAME",
        "WRONG_COLUMNS",
        "BAD_TEXT",
    ]
    assert rows[3][1] == Patron("P000004", "van der Meulen, jr.", "Joost", "ADULT", "joost@example.net", "1990-11-23")


def test_reading_goes_on_at_any_row() -> None:
    rows = read(SAMPLE)
    for index, (offset, _) in enumerate(rows):
        assert read(SAMPLE, offset) == rows[index + 1 :]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (b"1,Caf\xe9,A,ADULT,,", "BAD_TEXT"),
        (b"1,A\x1b[31m,A,ADULT,,", "BAD_TEXT"),
        (b"1,A,A,ADULT", "WRONG_COLUMNS"),
        (b"1,A,A,ADULT,,2999-01-01", "BAD_BIRTHDATE"),
        (b"1,A,A,ADULT,,19990101", "BAD_BIRTHDATE"),
        (b"1,A,A,ADULT,a@b,", "BAD_EMAIL"),
        (b"1,A,A,,,", "UNKNOWN_CATEGORY"),
        (b" ,A,A,ADULT,,", "NO_CARDNUMBER"),
    ],
)
def test_bad_rows(tmp_path: Path, row: bytes, code: str) -> None:
    file = tmp_path / "patrons.csv"
    file.write_bytes(HEADER.encode() + row + b"\n\n2,B,B,STAFF,,\n")
    (_, fault), (_, patron) = read(file)
    assert isinstance(fault, Fault)
    assert fault.code == code
    assert patron == Patron("2", "B", "B", "STAFF", "", "")


def test_columns_may_come_in_any_order_and_with_others(tmp_path: Path) -> None:
    file = tmp_path / "patrons.csv"
    file.write_text("\ufeffSurname, note,birthdate,email,category,firstname,cardnumber\nA,x,,,CHILD,B,7\n")
    assert read(file) == [(1, Patron("7", "A", "B", "CHILD", "", ""))]


@pytest.mark.parametrize("text", ["", "cardnumber;surname\n1;A\n", "\0"])
def test_a_file_of_something_else(tmp_path: Path, text: str) -> None:
    file = tmp_path / "patrons.csv"
    file.write_text(text)
    with pytest.raises(NoPatronFileError, match="no column"):
        read(file)
