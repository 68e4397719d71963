"""Reading and checking MARC records, on pymarc's own test files and on broken ones made here."""

from pathlib import Path

import pytest

from examples.ledger import Fault
from examples.marc_import.data import generate, multiply
from examples.marc_import.records import LONGEST_RECORD, Biblio, check, split

FAULTS = {
    "bad_records.mrc, byte 0": "BAD_LEADER",
    "bad_records.mrc, byte 127": "BASE_ADDRESS_INVALID",
    "bad_records.mrc, byte 254": "BASE_ADDRESS_NOT_FOUND",
    "bad_records.mrc, byte 381": "RECORD_DIRECTORY_INVALID",
    "bad_records.mrc, byte 509": "BAD_ENCODING",
    "bad_records.mrc, byte 637": "BAD_STRUCTURE",
    "bad_records.mrc, byte 764": "NO_FIELDS_FOUND",
    "bad_records.mrc, byte 790": "BAD_LEADER",
    "bad_records.mrc, byte 917": "TRUNCATED",
    "IT\\ICCU\\ANA\\0019370": "NO_TITLE",
}
"""Every fault in pymarc's 72 records."""


def faults(file: Path) -> dict[str, str]:
    found, place = {}, 0
    for end, raw in split(file, 0):
        record = check(raw, f"{file.name}, byte {place}")
        if isinstance(record, Fault):
            assert record.message
            found[record.record] = record.code
        place = end
    return found


def test_the_real_records(real_files: list[Path]) -> None:
    small = real_files[:-1]
    assert len(small) == 20
    assert sum(1 for file in small for _ in split(file, 0)) == 72
    found: dict[str, str] = {}
    for file in small:
        found |= faults(file)
    assert found == FAULTS


def test_fields_of_a_real_record(real_files: list[Path]) -> None:
    marc = next(file for file in real_files if file.name == "marc.dat")
    record = check(next(raw for _, raw in split(marc, 0)), "")
    assert isinstance(record, Biblio)
    assert record.control_number == "11778504"
    assert (record.title, record.author) == (
        "The pragmatic programmer : from journeyman to master /",
        "Hunt, Andrew, 1964-",
    )


def test_reading_goes_on_at_any_record(real_files: list[Path]) -> None:
    for file in real_files[:-1]:
        whole = list(split(file, 0))
        for index, (offset, _) in enumerate(whole):
            assert list(split(file, offset)) == whole[index + 1 :]


def test_one_broken_record_takes_no_other_with_it(tmp_path: Path) -> None:
    good = generate(tmp_path / "good", 1).read_bytes()
    file = tmp_path / "mixed"
    for broken in (b"rubbish\x1d", b"\x1d", b"99999" + good[5:], b"00000" + good[5:], good[:40] + b"\x1d", b"\r\n"):
        file.write_bytes(good + broken + good)
        records = [check(raw, "") for _, raw in split(file, 0)]
        assert isinstance(records[0], Biblio)
        assert isinstance(records[-1], Biblio)


@pytest.mark.parametrize("rubbish", [b"", b"\n\n", b"\0" * 10])
def test_files_without_records(tmp_path: Path, rubbish: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(rubbish)
    assert all(isinstance(check(raw, "x"), Fault) for _, raw in split(file, 0))


def test_memory_is_bounded_where_no_record_ends(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * (5 * LONGEST_RECORD))
    pieces = list(split(file, 0))
    assert max(len(raw) for _, raw in pieces) <= 2 * LONGEST_RECORD
    assert all(isinstance(check(raw, "x"), Fault) for _, raw in pieces)


def test_no_bytes_make_it_raise(real_files: list[Path]) -> None:
    raw = next(raw for _, raw in split(real_files[-1], 0))
    for position in range(0, len(raw), 7):
        for byte in (0x00, 0x1E, 0x1F, 0x39, 0xFF):
            check(raw[:position] + bytes([byte]) + raw[position + 1 :], "place")
        check(raw[:position] + b"\x1d", "place")


def test_copies_differ_in_their_control_numbers_alone(real_files: list[Path], tmp_path: Path) -> None:
    copies = multiply(real_files[:-1], 3, tmp_path / "copies.mrc")
    records = [check(raw, "") for _, raw in split(copies, 0)]
    good = [record for record in records if isinstance(record, Biblio)]
    assert (len(records), len(good)) == (3 * 72, 3 * 62)
    once = {record.control_number for record in good[:62]}
    assert {record.control_number for record in good} == {
        number + suffix for number in once for suffix in ("", "-1", "-2")
    }
    assert good[0].title == good[62].title


def test_invented_records_serve_where_there_are_no_others(tmp_path: Path) -> None:
    records = [check(raw, "") for _, raw in split(generate(tmp_path / "invented", 200), 0)]
    assert sum(isinstance(record, Biblio) for record in records) == 198
