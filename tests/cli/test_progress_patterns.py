"""Progress found in what programs print: lines captured from the real ones, and what must not be taken for it."""

import io
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tqdm import tqdm

from headway.cli.run.output_tail import KEPT, Tail
from headway.cli.run.progress_patterns import Finder
from headway.cli.run.progress_styles import STYLES, Reading, Style, amount, in_command, own

MEANT = {
    "tqdm": Reading(14, 30, "rec"),
    "tqdm without a total": Reading(10, None, ""),
    "wget": Reading(33, 100, "%"),
    "wget without a length": Reading(6.37 * 2**20, None, "bytes"),
    "wget in dots": Reading(97, 100, "%"),
    "rsync by file": Reading(2, 7, "files"),
    "rsync by file, while it still looks for more": Reading(3, None, "files"),
    "rsync by file, the last one": Reading(7, 7, "files"),
    "rsync": Reading(60, 100, "%"),
    "pip": Reading(24_700_000, 40_000_000, "bytes"),
    "pip --progress-bar raw": Reading(262_144, 3_000_628, "bytes"),
    "dd": Reading(20_388_511_744, None, "bytes"),
    "pv": Reading(50, 100, "%"),
    "pv without a size": Reading(12 * 2**20, None, "bytes"),
    "pv -l": Reading(28_100, None, "lines"),
    "curl without a length": Reading(3840 * 1024, None, "bytes"),
    "curl": Reading(3840 * 1024, 19 * 2**20, "bytes"),
    "ffmpeg": Reading(13, None, "seconds"),
    "git": Reading(450, 1000, "objects"),
    "xz": Reading(16.6, 100, "%"),
    "zstd": Reading(57.5 * 2**20, 60 * 2**20, "bytes"),
    "zstd without a size": Reading(4.5 * 2**20, None, "bytes"),
    "zip -dc": Reading(2, 7, "files"),
    "tar --checkpoint": Reading(1500, None, "records"),
    "apt-get": Reading(14, 100, "%"),
    "pg_basebackup": Reading(10293 * 1024, 22942 * 1024, "bytes"),
    "sizes": Reading(1.5 * 2**20, 5 * 2**20, "bytes"),
    "N/M": Reading(9, 20, ""),
    "N of M": Reading(1200, 5000, ""),
    "N %": Reading(45, 100, "%"),
}


def found(output: bytes, step: int = 64, styles: tuple[Style, ...] = STYLES) -> list[Reading]:
    """Each reading in turn, where a program writes so many bytes at a time."""
    finder, tail = Finder(styles), Tail()
    readings: list[Reading] = []
    for start in range(0, len(output), step):
        tail.feed(output[start : start + step])
        tail.look(finder)
        readings += [finder.reading] if finder.reading else []
    tail.end(finder)
    readings += [finder.reading] if finder.reading else []
    return [reading for i, reading in enumerate(readings) if i == 0 or reading != readings[i - 1]]


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_each_style_reads_its_example(style: Style) -> None:
    finder = Finder()
    finder.line(style.example)
    if style.sightings == 1 and not style.completes:
        assert finder.reading == MEANT[style.name]
    else:
        assert finder.reading is None or style.completes
        match = style.expression.search(style.example)
        assert match is not None
        assert style.read(match) == MEANT[style.name]


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_the_page_tells_of_each_program(style: Style) -> None:
    page = Path(__file__).parents[2] / "docs" / "run.md"
    assert style.sightings > 1 or style.name.split()[0] in page.read_text()


CAPTURED: dict[str, tuple[bytes, Reading]] = {
    "tqdm": (
        b"load:   0%|          | 0/30 [00:00<?, ?it/s]\rload:  10%|\xe2\x96\x88         | 3/30 [00:00<00:01, 19.90it/s]"
        b"\rload: 100%|\xe2\x96\x88\xe2\x96\x88\xe2\x96\x88| 30/30 [00:01<00:00, 19.60it/s]\n",
        Reading(30, 30, ""),
    ),
    "tqdm in a colour, of bytes": (
        b"a.bin:  25%|\x1b[32m##4       \x1b[0m| 1.50M/6.00M [00:01<00:03, 1.50MB/s]\x1b[A\r",
        Reading(1_500_000, 6_000_000, "bytes"),
    ),
    "wget": (
        b"Length: 20000000 (19M) [application/octet-stream]\nSaving to: \xe2\x80\x98/dev/null\xe2\x80\x99\n\n"
        b"\r/dev/null             0%[                    ]       0  --.-KB/s               "
        b"\r/dev/null            54%[=========>          ]  10.47M  9.99MB/s               "
        b"\r/dev/null           100%[===================>]  19.07M  10.2MB/s    in 1.9s    \n\n"
        b"2026-11-24 03:57:35 (10.2 MB/s) - '/dev/null' saved [20000000/20000000]\n",
        Reading(100, 100, "%"),
    ),
    "wget in dots": (
        b"     0K .......... .......... .......... .......... ..........  0% 1.2M 16s\n"
        b"    50K .......... .......... .......... .......... ..........  1%  703M 8s\n"
        b" 19500K .......... .......... .......... .                    100%  755M=1.7s\n",
        Reading(100, 100, "%"),
    ),
    "rsync": (
        b"              0   0%    0.00kB/s    0:00:00  \r"
        b"      1,000,000   5%   11.31MB/s    0:00:00 (xfr#1, to-chk=19/21)"
        b"\r     12,000,000  60%   10.67MB/s    0:00:01 (xfr#12, to-chk=8/21)",
        Reading(60, 100, "%"),
    ),
    "pip": (
        b"\x1b[?25l     \x1b[90m\xe2\x94\x81\xe2\x94\x81\x1b[0m \x1b[32m0.0/40.0 MB\x1b[0m \x1b[31m?\x1b[0m eta "
        b"\x1b[36m-:--:--\x1b[0m\r\x1b[2K     \x1b[91m\xe2\x94\x81\x1b[0m\x1b[90m\xe2\x94\x81\x1b[0m "
        b"\x1b[32m24.7/40.0 MB\x1b[0m \x1b[31m159.9 MB/s\x1b[0m eta \x1b[36m0:00:01\x1b[0m",
        Reading(24_700_000, 40_000_000, "bytes"),
    ),
    "dd": (
        b"\r20388511744 bytes (20 GB, 19 GiB) copied, 1 s, 20.4 GB/s\r"
        b"55970889728 bytes (56 GB, 52 GiB) copied, 2 s, 28 GB/s"
        b"\n60000+0 records in\n60000+0 records out\n62914560000 bytes (63 GB, 59 GiB) copied, 2.17123 s, 29.0 GB/s\n",
        Reading(62_914_560_000, None, "bytes"),
    ),
    "pv": (
        b"10.0MiB 0:00:01 [9.96MiB/s] [================>                 ] 52% ETA 0:00:00\r"
        b"19.1MiB 0:00:01 [9.98MiB/s] [================================>] 100%            \n",
        Reading(100, 100, "%"),
    ),
    "pv without a size": (
        b"10.0MiB 0:00:01 [9.97MiB/s] [<=>                      ]\r12.0MiB 0:00:01 [9.98MiB/s] [ <=>               ]\n",
        Reading(12 * 2**20, None, "bytes"),
    ),
    "curl": (
        b"  % Total    % Received % Xferd  Average Speed   Time    Time     Time  Current\n"
        b"                                 Dload  Upload   Total   Spent    Left  Speed\n"
        b"\r  0     0    0     0    0     0      0      0 --:--:-- --:--:-- --:--:--     0"
        b"\r 19 19.0M   19 3840k    0     0   9.9M      0  0:00:01 --:--:--  0:00:01  9.9M"
        b"\r100 19.0M  100 19.0M    0     0  14.3M      0  0:00:01  0:00:01 --:--:-- 14.3M\n",
        Reading(19 * 2**20, 19 * 2**20, "bytes"),
    ),
    "curl -#": (
        b"\r###                      21.6%\r######                   42.6%\r###############          94.3%\r"
        b"##### 100.0%\n",
        Reading(100, 100, "%"),
    ),
    "ffmpeg": (
        b"  Duration: 00:00:20.00, start: 0.000000, bitrate: 302 kb/s\n"
        b"frame=    1 fps=0.0 q=5.5 size=      24kB time=00:00:00.04 bitrate=4921.2kbits/s speed=51.3x    \r"
        b"frame=  344 fps=0.0 q=23.8 size=     512kB time=00:00:13.76 bitrate= 304.8kbits/s speed=27.4x    \r"
        b"frame=  500 fps=0.0 q=26.4 Lsize=     795kB time=00:00:20.00 bitrate= 325.5kbits/s speed=  29x    \n",
        Reading(20, 20, "seconds"),
    ),
    "apt": (
        b"\x1b7\x1b[24;0f\x1b[42m\x1b[30mProgress: [ 12%]\x1b[49m\x1b[39m [#.......] \x1b8Unpacking pv (1.6.20-1) ...\n"
        b"\x1b7\x1b[24;0f\x1b[42mProgress: [ 37%]\x1b[49m [###.....] \x1b8Setting up pv (1.6.20-1) ...\n"
        b"\x1b7\x1b[24;0f\x1b[42mProgress: [ 62%]\x1b[49m [#####...] \x1b8\n",
        Reading(62, 100, "%"),
    ),
    "ninja": (
        b"[1/20] Building A.o\n[2/20] Building B.o\n[3/20] Building C.o\n[4/20] Linking\n",
        Reading(4, 20, ""),
    ),
    "git": (
        b"Cloning into 'x'...\nremote: Enumerating objects: 302, done.        \n"
        b"remote: Counting objects:   0% (1/302)        \rremote: Counting objects: 100% (302/302)        \n"
        b"Receiving objects:   0% (1/302)\rReceiving objects:  84% (254/302)\r"
        b"Receiving objects:  92% (278/302), 639.98 KiB | 277.00 KiB/s\r"
        b"Receiving objects: 100% (302/302), 890.06 KiB | 306.00 KiB/s, done.\n",
        Reading(302, 302, "objects"),
    ),
    "tqdm, scaled": (
        b"\r  0%|          | 0.00/3.00k [00:00<?, ?B/s]\r 51%|#####     | 1.54k/3.00k [00:00<00:00, 1.69kB/s]"
        b"\r100%|##########| 3.00k/3.00k [00:01<00:00, 1.69kB/s]\n",
        Reading(3000, 3000, "bytes"),
    ),
    "tqdm, slow": (
        b"\r 25%|##5       | 1/4 [00:03<00:10,  3.50s/file]\r 50%|#####     | 2/4 [00:07<00:07,  3.50s/file]\n",
        Reading(2, 4, "file"),
    ),
    "pip, newer": (
        b"     ---- 0.0/3.0 MB ? eta -:--:--\r\x1b[2K     ---- 3.0/3.0 MB 1.6 GB/s  0:00:00\r\n",
        Reading(3_000_000, 3_000_000, "bytes"),
    ),
    "rsync --progress": (
        b"sending incremental file list\n./\nf1\n\r         32,768   6%    0.00kB/s    0:00:00  "
        b"\r        500,000 100%    2.09MB/s    0:00:00 (xfr#1, ir-chk=5/7)\nf2\n"
        b"\r         32,768   6%   98.46kB/s    0:00:04  "
        b"\r        500,000 100%  907.59kB/s    0:00:00 (xfr#2, ir-chk=4/7)\nf3\n"
        b"\r         32,768   6%   49.16kB/s    0:00:09  "
        b"\r        500,000 100%  564.49kB/s    0:00:00 (xfr#3, to-chk=3/7)\nf4\n"
        b"\r        196,608  39%  177.45kB/s    0:00:01  "
        b"\r        500,000 100%  410.67kB/s    0:00:01 (xfr#4, to-chk=2/7)\nf5\n"
        b"\r         32,768   6%  146.79kB/s    0:00:03  "
        b"\r        500,000 100%    1.10MB/s    0:00:00 (xfr#5, to-chk=1/7)\nf6\n"
        b"\r         32,768   6%   58.72kB/s    0:00:07  ",
        Reading(6, 7, "files"),
    ),
    "dd in German": (
        b"104857600 Bytes (105 MB, 100 MiB) kopiert, 1 s, 104 MB/s\r"
        b"400+0 Datens\xc3\xa4tze ein\n419430400 Bytes (419 MB, 400 MiB) kopiert, 4,00421413 s, 99,5 MB/s\n",
        Reading(419_430_400, None, "bytes"),
    ),
    "xz": (
        b"photos.tar (1/1)\n\r  5.7 %           3.4 MiB / 3.4 MiB = 0.994                   0:01             \r"
        b"\r 16.6 %          9.9 MiB / 10.0 MiB = 0.994   2.5 MiB/s       0:04             \r"
        b"\r  100 %         60.0 MiB / 60.0 MiB = 1.000   2.0 MiB/s       0:29             \r\n",
        Reading(100, 100, "%"),
    ),
    "xz without a size": (
        b"\r  --- %           1.2 MiB / 1.2 MiB = 0.949                   0:01             \r"
        b"\r  --- %       544.0 KiB / 3.7 MiB = 0.142   1.2 MiB/s       0:03             \r\n",
        Reading(3.7 * 2**20, None, "bytes"),
    ),
    "zstd": (
        b"\rRead:     0   B /  60.0 MiB ==>  0%\r                         \rRead: 1.000 MiB /  60.0 MiB ==> 100%"
        b"\r                         \rRead:  2.50 MiB /  60.0 MiB ==> 100%\r                   \r"
        b"photos.tar           :100.00%   (  60.0 MiB =>   60.0 MiB, photos.tar.zst) \n",
        Reading(2.5 * 2**20, 60 * 2**20, "bytes"),
    ),
    "zip -dc": (
        b"  0/  3   adding: a/ (stored 0%)\n  1/  2   adding: a/f (deflated 0%)\n  2/  1   adding: a/g (deflated 9%)\n",
        Reading(2, 3, "files"),
    ),
    "7z": (
        b"  0%\b\b\b\b    \b\b\b\b  7% + r60\b\b\b\b\b\b\b\b\b\b          \b\b\b\b\b\b\b\b\b\b 15% + r60"
        b"\b\b\b\b\b\b\b\b\b\b          \b\b\b\b\b\b\b\b\b\b 98% + r60\b\b\b\b\b\b\b\b\b\b          \b\b\n"
        b"Files read from disk: 1\n",
        Reading(98, 100, "%"),
    ),
    "mksquashfs": (
        b"\r[/            ]   0/503   0%\r[-            ]   0/503   0%\r[\\            ]   3/503   0%"
        b"\r[=============/] 503/503 100%\n\t100.00% of uncompressed filesystem size (64371.92 Kbytes)\n",
        Reading(503, 503, ""),
    ),
    "apt-get download": (
        b"\r0% [Working]\r            \rGet:1 http://localhost/debian bookworm/main amd64 mc 3:4.8.29-2 [522 kB]\n"
        b"\r0% [1 mc 0 B/522 kB 0%]\r              \r14% [2 linux-image-cloud-amd64 917 kB/26.5 MB 3%]"
        b"\r                \r92% [Working]\r            \r100% [Working]\r       \rFetched 28.8 MB in 0s (201 MB/s)\n",
        Reading(100, 100, "%"),
    ),
    "pg_basebackup": (
        b"waiting for checkpoint\n10293/22942 kB (44%), 0/1 tablespace\n20515/22942 kB (89%), 0/1 tablespace\n"
        b"22953/22953 kB (100%), 0/1 tablespace\n22953/22953 kB (100%), 1/1 tablespace\n",
        Reading(22953 * 1024, 22953 * 1024, "bytes"),
    ),
    "pytest": (
        b"test_1.py ..                         [ 20%]\ntest_2.py ..                         [ 40%]\n"
        b"test_3.py ..                         [ 60%]\n",
        Reading(60, 100, "%"),
    ),
}


@pytest.mark.parametrize("step", [1, 7, 64, 5000])
@pytest.mark.parametrize("program", CAPTURED)
def test_what_programs_print_is_read_however_it_is_split(program: str, step: int) -> None:
    output, last = CAPTURED[program]
    readings = found(output, step)
    assert readings[-1] == last
    # Of each kind, that is: git counts twice, rsync --progress in percent at first.
    for kind in {(reading.total, reading.unit) for reading in readings} if program != "git" else ():
        done = [reading.done for reading in readings if (reading.total, reading.unit) == kind]
        assert done == sorted(done)


@pytest.mark.parametrize(
    "lines",
    [
        ["2024/11 begins", "2024/12 begins", "2025/01 begins"],
        ["2024/11/05 12:00:00 one", "2024/11/06 12:00:00 two", "2024/11/07 12:00:00 three"],
        ["05/11/2024 a", "06/11/2024 b", "07/11/2024 c"],
        ["see http://a/1/3 first", "/usr/lib/2/3", "a/3/3"],
        ["1/3 of it is there", "nothing", "more"],
        ["TCP/IP 1.2/3.4", "TCP/IP 1.3/3.4", "TCP/IP 1.4/3.4"],
        ["disk 93% full", "disk 93% full", "disk 93% full", "disk 93% full"],
        ["-3% a", "-2% b", "-1% c"],
        ["140%", "150%", "160%"],
        ["9/3", "8/3", "7/3"],
        ["12:01/30", "12:02/30", "12:03/30"],
        ["1/0", "1/0", "2/0"],
    ],
)
def test_what_only_looks_like_progress(lines: list[str]) -> None:
    assert found("\n".join([*lines, ""]).encode()) == []


def test_a_stray_line_moves_nothing() -> None:
    lines = [f"{n}/100 done\nchapter 3/7, page 12 of 90, 5/100, 1% lost\n" for n in range(1, 101)]
    readings = found("".join(lines).encode())
    assert {reading.total for reading in readings} == {100}
    done = [reading.done for reading in readings]
    assert done == sorted(done)
    assert done[-1] == 100


def test_the_next_file_begins_anew() -> None:
    first = "".join(f"\ra {percent:3d}%[=>   ] 1.0M 1.0MB/s " for percent in (10, 50, 100))
    second = "".join(f"\rb {percent:3d}%[=>   ] 1.0M 1.0MB/s " for percent in (0, 20, 40))
    assert found((first + second + "\n").encode())[-1].done == 40


def test_a_count_that_is_dropped_gives_way_to_another() -> None:
    output = "".join(f"step {n}/1000\n" for n in range(1, 10)) + "".join(f"item {n}/50\n" for n in range(1, 51))
    assert found(output.encode())[-1] == Reading(50, 50, "")


def tqdm_writes(draw: Callable[[io.StringIO], object]) -> bytes:
    output = io.StringIO()
    draw(output)
    return output.getvalue().encode()


@pytest.mark.parametrize("leave", [False, True])
@pytest.mark.parametrize("name", [None, "files"])
def test_a_bar_within_a_bar_is_a_part_of_it(leave: bool, name: str | None) -> None:
    def draw(output: io.StringIO) -> None:
        for length in tqdm([60, 67, 74], file=output, mininterval=0, desc=name):
            for _ in tqdm(range(length), file=output, mininterval=0, leave=leave):
                pass

    assert found(tqdm_writes(draw)) == [Reading(done, 3, "") for done in range(4)]


def test_rich_bars_below_each_other() -> None:
    rows = [(outer, inner) for outer in range(3) for inner in range(0, 61, 4)]
    drawn = [f"files ━━━ {outer}/3 \r\nrows ━━━ {inner}/6{outer}" for outer, inner in rows]
    readings = found("\r\x1b[2K\x1b[1A\x1b[2K".join([*drawn, "files ━━━ 3/3 \r\nrows 60/62\r\n"]).encode(), 100)
    assert [reading for reading in readings if reading.done > 1] == [Reading(2, 3, ""), Reading(3, 3, "")]


def test_counts_within_a_count_that_only_lines_tell_of() -> None:
    lines = ["step 1/9", "step 2/9", "step 3/9"]
    for step, length in enumerate([60, 67, 74], start=4):
        lines += [*(f"row {row}/{length}" for row in range(1, length + 1)), f"step {step}/9"]
    readings = found("\n".join([*lines, ""]).encode(), 8)
    # Nobody can tell which is which before the first one goes on.
    assert [reading for reading in readings if reading.total not in (60, 9)] == []
    assert readings[-1] == Reading(6, 9, "")


def test_a_total_that_grows() -> None:
    def draw(output: io.StringIO) -> None:
        with tqdm(total=10, file=output, mininterval=0) as bar:
            for step in range(60):
                bar.total = 10 + step
                bar.update()

    readings = found(tqdm_writes(draw))
    assert readings[-1] == Reading(60, 69, "")
    # It takes three sightings to know it for the same bar; from then on each counts.
    assert len(readings) > 40
    plain = "".join(f"link {n}/{20 + n}\n" for n in range(1, 30))
    assert found(plain.encode())[-1] == Reading(29, 49, "")


@pytest.mark.parametrize(
    ("line", "reading"),
    [
        ("12,004/12,500 records", Reading(12_004, 12_500, "")),
        ("12 004/12 500 records", Reading(12_004, 12_500, "")),
        ("12 004 of 12 500 records", Reading(12_004, 12_500, "")),
        ("12\u202f004/12\u202f500 records", Reading(12_004, 12_500, "")),
        ("12\u00a0004 / 12\u00a0500", Reading(12_004, 12_500, "")),
        ("12'004/12'500", Reading(12_004, 12_500, "")),
        ("12’004 of 12’500", Reading(12_004, 12_500, "")),
        ("1.002.003/3.000.000", Reading(1_002_003, 3_000_000, "")),
        ("10,02,003/12,34,567", Reading(1_002_003, 1_234_567, "")),
        ("12:00:07 104/400", Reading(104, 400, "")),
        ("2,5 MiB/5,0 MiB", Reading(2.5 * 2**20, 5 * 2**20, "bytes")),
        ("2.929,7 KiB of 1 GiB", None),
        ("45,5 %", Reading(45.5, 100, "%")),
        ("45,5\u202f%", Reading(45.5, 100, "%")),
        # It may be one number or another.
        ("1.002/3.000", None),
        ("4/12 500", None),
        ("12 004/500", None),
        ("1,5/3,0", None),
        ("0,1/3", None),
        ("1,234 MiB/5,000 MiB", None),
        ("x12\u202f004/12500", None),
    ],
)
def test_a_number_is_right_or_none(line: str, reading: Reading | None) -> None:
    finder = Finder()
    for _ in range(2):
        finder.line(re.sub(r"4(?=\D*/|\D* of)|3(?=/)|5(?=( MiB/|,?5?\s?%))", "0", line, count=1))
    for _ in range(2):
        finder.line(line)
    assert finder.reading == reading


@pytest.mark.parametrize(
    ("output", "last"),
    [
        # LC_ALL=de_DE.UTF-8, fr_FR.UTF-8 and de_CH.UTF-8.
        ("1,43MiB 0:00:00 [6,27MiB/s] [=======>        ] 50% ETA 0:00:00\r", Reading(50, 100, "%")),
        ("2,86MiB 0:00:00 [6,16MiB/s] [================>] 100%            \n", Reading(100, 100, "%")),
        ("2,86MiB 0:00:00 [6,27MiB/s] [  <=>           ]\n", Reading(2.86 * 2**20, None, "bytes")),
        ("2,86MiO 0:00:00 [6,07MiO/s] [  <=>           ]\n", Reading(2.86 * 2**20, None, "bytes")),
        ("12,5k 0:00:00 [5,13M/s] [ <=>    ]\n", Reading(12_500, None, "lines")),
        ("     12.000.000  60%   10,67MB/s    0:00:01  \r", Reading(60, 100, "%")),
        ("      1 160 000  98%   10,67MB/s    0:00:01  \r", Reading(98, 100, "%")),
        ("     390,62K  98%   10,67MB/s    0:00:01  \r", Reading(98, 100, "%")),
        ("3000000 octets (3,0 MB, 2,9 MiB) copiés, 0,00577741 s, 519 MB/s\n", Reading(3_000_000, None, "bytes")),
        ("  16,6 %     1.234,9 KiB / 2.929,7 KiB = 0,994   2,5 MiB/s   0:04  \r", Reading(16.6, 100, "%")),
        (
            "  --- %     1,2 MiB / 2\u202f929,7 KiB = 0,142   1,2 MiB/s   0:03  \r",
            Reading(2929.7 * 1024, None, "bytes"),
        ),
        ("  --- %     1.2 MiB / 2’929.7 KiB = 0.142   1.2 MiB/s   0:03  \r", Reading(2929.7 * 1024, None, "bytes")),
    ],
)
def test_what_programs_print_in_other_countries(output: str, last: Reading) -> None:
    assert found(output.encode())[-1] == last


FILM = "  Duration: 00:01:00.00, start: 0.0\n  Duration: 00:00:05.00, start: 0.0\n"
AT_10 = "frame=  250 fps=0.0 q=-1.0 Lq=-1.0 size=N/A time=00:00:10.04 bitrate=N/A speed=27.4x    \r"


@pytest.mark.parametrize(
    ("command", "output", "readings"),
    [
        ("ffmpeg -i a.mp4 -i b.wav out.mkv", FILM + AT_10, [Reading(10, 60, "seconds")]),
        ("ffmpeg -t 20 -i a.mp4 out.mkv", FILM + AT_10, [Reading(10, 20, "seconds")]),
        ("sh -c cat;ffmpeg -i a.mp4 -t 00:00:20.5 out.mkv|cat -t 1", FILM + AT_10, [Reading(10, 20, "seconds")]),
        ("ffmpeg -t 70 -i a.mp4 out.mkv", FILM + AT_10, [Reading(10, 60, "seconds")]),
        ("ffmpeg -ss 20 -i a.mp4 out.mkv", FILM + AT_10, [Reading(10, None, "seconds")]),
        ("ffmpeg -i a.mp4 -t 5 one.mkv -t 9 two.mkv", FILM + AT_10, [Reading(10, None, "seconds")]),
        # A speed that the output alone has makes it longer than what was announced.
        ("ffmpeg -i a.mp4 out.mkv", FILM + AT_10.replace("00:10", "01:10"), [Reading(70, None, "seconds")]),
        (
            "ffmpeg -progress pipe:1 -nostats -i a.mp4 out.mkv",
            FILM + "frame=98\nout_time_us=10000000\nout_time_ms=10000000\nout_time=00:00:10.000000\nspeed=9x\n",
            [Reading(10, 60, "seconds")],
        ),
        ("ffmpeg -i a.mp4 out.mkv", AT_10.replace("time=", "time=-"), []),
        ("ffmpeg -i a.mp4 out.mkv", "out_time_ms=-9223372036854775807\nout_time=-577014:32:22.775807\n", []),
        ("ffmpeg -i a.flv out.mkv", "out_time_ms=N/A\nout_time=N/A\nprogress=continue\n", []),
    ],
)
def test_ffmpeg_tells_of_how_much_it_does(command: str, output: str, readings: list[Reading]) -> None:
    assert found(output.encode(), styles=in_command(command.split())) == readings


def test_rsync_by_file_comes_to_its_end() -> None:
    line = "        500,000 100%    2.09MB/s    0:00:00 (xfr#{}, to-chk={}/7)\n"
    output = "".join(line.format(n, 7 - n) for n in range(1, 8))
    assert found(output.encode())[-1] == Reading(7, 7, "files")


def test_a_line_without_an_end_takes_no_more_room() -> None:
    finder, tail = Finder(), Tail()
    for _ in range(200):
        tail.feed(random.Random(1).randbytes(65536).replace(b"\n", b"").replace(b"\r", b"").replace(b"\0", b""))
        tail.look(finder)
        assert len(tail._kept) <= KEPT
        assert len(tail._open) <= KEPT
    tail.feed(b"\n" + b"".join(b"%d/9\n" % n for n in range(1, 10)))
    tail.look(finder)
    assert finder.reading == Reading(9, 9, "")


def test_binary_output_is_no_text() -> None:
    assert found(b"".join(b"\0\1%d/9\n" % n for n in range(1, 10))) == []


def test_a_bar_that_stands_still_is_read() -> None:
    finder, tail = Finder(), Tail()
    tail.feed(b"\rload:  47%|#####     | 14/30 [00:00<00:00, 19.66it/s]")
    tail.look(finder)
    tail.look(finder)
    assert finder.reading == Reading(14, 30, "")


def test_a_pattern_of_ones_own() -> None:
    pattern = own(r"^(?P<done>[\d,]+) rows, (?P<total>\d+) expected")
    assert found(b"1/3\n1,000 rows, 4000 expected\n", styles=(pattern,)) == [Reading(1000, 4000, "")]
    assert found(b"at 12.5\n", styles=(own(r"at (?P<percent>[\d.]+)"),)) == [Reading(12.5, 100, "%")]
    assert found(b"at x\n", styles=(own(r"at (?P<done>\w)"),)) == []
    left = own(r"(?P<left>\d+) (?P<unit>\w+) left of (?P<total>\d+)")
    assert found(b"3 books left of 10\n", styles=(left,)) == [Reading(7, 10, "books")]
    back = own(r"left (?P<done>\d+)")
    assert [reading.done for reading in found(b"left 3\nleft 2\n", 7, (back,))] == [3, 2]
    for wrong in ("(", r"\d+", "(?P<total>x)"):
        with pytest.raises(ValueError, match=r"regular expression|has no group"):
            own(wrong)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,234", 1234),
        ("12.5k", 12500),
        ("1.5MiB", 1.5 * 2**20),
        ("3 GB", 3e9),
        ("0:01:30", 90),
        ("2,86MiB", 2.86 * 2**20),
        ("1.234,5 KiB", 1234.5 * 2**10),
        ("1 234 567", 1_234_567),
        ("1,234 MiB", None),
        ("1,234,5", None),
        ("x", None),
        ("", None),
    ],
)
def test_amounts(text: str, number: float | None) -> None:
    assert amount(text) == number


def test_the_last_lines() -> None:
    tail = Tail()
    tail.feed(b"".join(b"line %d\n" % n for n in range(100)) + b"10%\r\x1b[31m20%\x1b[0m\r\n\n\xff\a!")
    words = tail.words(3, 100).splitlines()
    assert words == ["line 99", "20%", "\N{REPLACEMENT CHARACTER}!"]
    assert tail.words(20, 10) == tail.words(20, 1000)[-10:]
