"""`headway run` on real programs: what the server shows of them while they run, and at their end."""

import io
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import wave
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.watched import Watched, slow_server
from tests.conftest import missing
from tests.support.postgres import Postgres, find_binaries

Start = Callable[..., Watched]


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts a program in the test's folder; one that waits for nobody begins once the server shows its job."""
    running: list[Watched] = []

    def start(*command: str, terminal: bool = False, need: str = "", waits: bool = True, **variables: str) -> Watched:
        for program in (need or command[0]).split():
            if not shutil.which(program):
                missing(program)
        words = command if waits else ("sh", "-c", 'read x; exec "$@"', "sh", *command)
        watched = Watched(words, {**environment, "LC_ALL": "C.UTF-8", **variables}, terminal=terminal)
        running.append(watched)
        if not waits:
            watched.reaches(0, 0, "")
            watched.feed(b"\n")
        return watched

    before = Path.cwd()
    os.chdir(tmp_path)
    yield start
    os.chdir(before)
    for watched in running:
        watched.close()


def has_locale(name: str) -> bool:
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.lower().split()
    return name.lower().replace("-", "") in known


def steps(folder: Path) -> Callable[[int], None]:
    """Lets the steps up to this one go on, each of which waits for a file of its name."""

    def go(number: int) -> None:
        for n in range(1, number + 1):
            (folder / f"go{n}").touch()

    return go


def printed(watched: Watched, pattern: str) -> set[int]:
    """All such numbers in what the program wrote."""
    return {int(number) for number in re.findall(pattern.encode(), watched.output)}


def sizes(pattern: bytes, watched: Watched) -> set[int]:
    """All such sizes, in KiB or MiB."""
    found = re.findall(pattern, watched.output)
    return {int(float(number) * (2**20 if prefix == b"M" else 2**10)) for number, prefix in found}


# Downloads.


def test_wget(start: Start) -> None:
    with slow_server(bytes(51_200 * 100)) as (url, send):
        wget = start("wget", "-O", "copy", f"{url}/big")
        for percent, more in ((30, 30), (70, 40)):
            send(51_200 * more)
            wget.reaches(percent, 100, "%")
        send(51_200 * 30)
        assert wget.end() == ("COMPLETED", 100, 100, "%")


def test_wget_on_a_terminal(start: Start) -> None:
    with slow_server(bytes(1_000_000)) as (url, send):
        wget = start("wget", "-O", "copy", f"{url}/big", terminal=True)
        for percent, more in ((30, 300_000), (70, 400_000)):
            send(more)
            wget.reaches(percent, 100, "%")
        send(300_000)
        assert wget.end() == ("COMPLETED", 100, 100, "%")
        assert b"100%[=" in wget.output


def test_curl(start: Start) -> None:
    with slow_server(bytes(5000 * 1024)) as (url, send):
        curl = start("curl", "-o", "copy", f"{url}/big")
        for kibibytes, more in ((1500, 1500), (3500, 2000)):
            send(more * 1024)
            curl.reaches(kibibytes * 1024, 5000 * 1024, "bytes")
        send(1500 * 1024)
        assert curl.end() == ("COMPLETED", 5000 * 1024, 5000 * 1024, "bytes")


def test_pip_download(start: Start, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "wheel", "w") as wheel:
        wheel.writestr("example/data", os.urandom(3_000_000))
        wheel.writestr("example-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: example\nVersion: 1.0\n")
        wheel.writestr("example-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("example-1.0.dist-info/RECORD", "")
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with slow_server((tmp_path / "wheel").read_bytes()) as (url, send):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "-i", url, "example"]
        pip = start(*command, terminal=True, **settings)
        for done, more in ((900_000, 930_000), (2_100_000, 1_200_000)):
            send(more)
            pip.reaches(done, 3_000_000, "bytes")
        send(1_000_000)
        assert pip.end() == ("COMPLETED", 3_000_000, 3_000_000, "bytes")


def test_git_clone(start: Start, tmp_path: Path) -> None:
    if not shutil.which("git"):
        missing("git")
    (tmp_path / "origin").mkdir()
    for n in range(198):
        (tmp_path / "origin" / f"file{n}").write_bytes(random.Random(n).randbytes(3000))
    me = ["-c", "user.name=me", "-c", "user.email=me@localhost"]
    for words in (["init", "-q"], ["add", "."], [*me, "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=tmp_path / "origin", check=True)
    (tmp_path / "pack").write_text('#!/bin/sh\ngit-upload-pack "$@" | pv -q -L 400k\n')
    (tmp_path / "pack").chmod(0o755)
    command = ["git", "clone", "--progress", f"--upload-pack={tmp_path}/pack", f"file://{tmp_path}/origin", "copy"]
    git = start(*command, need="git pv", waits=False)
    assert git.end() == ("COMPLETED", 200, 200, "objects")
    receiving = {int(count) for count in re.findall(rb"Receiving objects: +\d+% \((\d+)/200", git.output)}
    assert len({state.progress for state in git.states if state.progress < 200} & receiving) >= 2


# Copies and archives.


def test_dd(start: Start, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(3_300_000))
    dd = start(
        "sh", "-c", "pv -q -L 1m big | dd of=copy bs=10k iflag=fullblock status=progress", need="pv", waits=False
    )
    assert dd.end() == ("COMPLETED", 3_300_000, 0, "bytes")
    on_the_way = dd.on_the_way(0, "bytes")
    assert len(on_the_way) >= 3
    assert set(on_the_way) <= printed(dd, r"(\d+) bytes")


def test_pv(start: Start) -> None:
    pv = start("sh", "-c", "pv -f -i 0.1 -s 1000 > copy", need="pv")
    for percent, more in ((30, 300), (70, 400)):
        pv.feed(bytes(more))
        pv.reaches(percent, 100, "%")
    pv.feed(bytes(300))
    assert pv.end() == ("COMPLETED", 100, 100, "%")


def test_pv_where_numbers_have_a_decimal_comma(start: Start) -> None:
    if not has_locale("de_DE.UTF-8"):
        missing("the locale de_DE.UTF-8")
    pv = start("sh", "-c", "pv -f -i 0.1 -s 3000000 > copy", need="pv", LC_ALL="de_DE.UTF-8")
    pv.feed(bytes(900_000))
    pv.reaches(30, 100, "%")
    pv.feed(bytes(2_100_000))
    assert pv.end() == ("COMPLETED", 100, 100, "%")
    assert b"2,86MiB" in pv.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With 8 files of 250 kB."""
    (tmp_path / "from").mkdir()
    for n in range(8):
        (tmp_path / "from" / f"file{n}").write_bytes(random.Random(n).randbytes(250_000))
    return tmp_path / "from"


def test_rsync(start: Start, folder: Path) -> None:
    rsync = start("rsync", "-r", "--bwlimit=1000", "--info=progress2", f"{folder}/", "to/", waits=False)
    assert rsync.end() == ("COMPLETED", 100, 100, "%")
    on_the_way = rsync.on_the_way(100, "%")
    assert len(on_the_way) >= 2
    assert set(on_the_way) <= printed(rsync, r"(\d+)%")


def test_rsync_file_by_file(start: Start, folder: Path) -> None:
    rsync = start("rsync", "-r", "--bwlimit=1000", "--progress", f"{folder}/", "to/", waits=False)
    # One is the folder itself.
    assert rsync.end() == ("COMPLETED", 9, 9, "files")
    assert len(rsync.on_the_way(9, "files")) >= 2


def test_xz(start: Start, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(random.Random(1).randbytes(2_700_000))
    command = "pv -q -L 1m big | xz -v -0 > copy"
    xz = start("sh", "-c", command, terminal=True, need="pv xz", waits=False)
    assert xz.end().status == "COMPLETED"
    on_the_way = xz.on_the_way(0, "bytes")
    assert len(on_the_way) >= 2
    assert set(on_the_way) <= sizes(rb"--- % +[\d.]+ [KM]iB / ([\d.]+) ([KM])iB", xz)


def test_zstd(start: Start, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(random.Random(1).randbytes(3_300_000))
    command = "pv -q -L 2m big | zstd --single-thread --progress -o copy"
    zstd = start("sh", "-c", command, need="pv zstd", waits=False)
    assert zstd.end().status == "COMPLETED"
    on_the_way = zstd.on_the_way(0, "bytes")
    assert len(on_the_way) >= 3
    assert set(on_the_way) <= sizes(rb"Read: +([\d.]+) ([KM])iB", zstd)


def test_tar(start: Start) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("big")
        member.size = 100 * 10240
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    content = archive.getvalue()
    tar_program = start("tar", "-t", "--checkpoint=10")
    for records, more in ((30, content[: 30 * 10240]), (70, content[30 * 10240 : 70 * 10240])):
        for begin in range(0, len(more), 10240):
            tar_program.feed(more[begin : begin + 10240])
        tar_program.reaches(records, 0, "records")
    for begin in range(70 * 10240, len(content), 10240):
        tar_program.feed(content[begin : begin + 10240])
    assert tar_program.end() == ("COMPLETED", 100, 0, "records")


def test_pg_basebackup(start: Start, postgresql: Postgres, tmp_path: Path) -> None:
    binaries = find_binaries()
    assert binaries is not None
    server = ["-h", "127.0.0.1", "-p", str(postgresql.port), "-U", "headway", "-c", "fast"]
    backup = start(str(binaries / "pg_basebackup"), *server, "-D", f"{tmp_path}/backup", "-P", "-r", "8M", waits=False)
    end = backup.end()
    assert end == ("COMPLETED", end.size, end.size, "bytes")
    on_the_way = {state.progress for state in backup.states if state.progress < state.size}
    assert len(on_the_way - {0}) >= 2
    assert {progress // 1024 for progress in on_the_way} - {0} <= printed(backup, r"(\d+)/\d+ kB")


# Work in steps.


def test_tqdm(start: Start, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import sys\nfrom tqdm import tqdm\n"
        "for line in tqdm(iter(sys.stdin.readline, ''), total=10, unit='record', mininterval=0, miniters=1): pass\n"
    )
    script = start(sys.executable, str(tmp_path / "script.py"))
    for count, more in ((3, 3), (7, 4)):
        script.feed(b"line\n" * more)
        script.reaches(count, 10, "record")
    script.feed(b"line\n" * 3)
    assert script.end() == ("COMPLETED", 10, 10, "record")


def test_rich(start: Start, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import sys\nfrom rich.progress import track\n"
        "for _ in track(range(20), update_period=0.02): sys.stdin.readline()\n"
    )
    script = start(sys.executable, str(tmp_path / "script.py"), terminal=True)
    # What looks like much else is believed once it has moved.
    script.feed(b"line\n" * 2)
    for count, more in ((6, 4), (14, 8)):
        script.feed(b"line\n" * more)
        script.reaches(count * 5, 100, "%")
    script.feed(b"line\n" * 6)
    assert script.end() == ("COMPLETED", 100, 100, "%")


def test_ffmpeg(start: Start, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "in.wav"), "w") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(2 * 8000 * 3))
    ffmpeg = start("ffmpeg", "-nostdin", "-re", "-i", "in.wav", "-f", "null", "-", waits=False)
    assert ffmpeg.end() == ("COMPLETED", 3, 3, "seconds")
    assert len(ffmpeg.on_the_way(3, "seconds")) >= 2


def test_ffmpeg_with_a_short_input_beside_a_long_one(start: Start, tmp_path: Path) -> None:
    for name, seconds in (("long", 30), ("short", 2)):
        with wave.open(str(tmp_path / f"{name}.wav"), "w") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(8000)
            sound.writeframes(bytes(2 * 8000 * seconds))
    inputs = ["-i", "long.wav", "-i", "short.wav", "-map", "0:a", "-map", "1:a"]
    both = start("ffmpeg", "-nostdin", *inputs, "-f", "null", "-", waits=False)
    assert both.end() == ("COMPLETED", 30, 30, "seconds")
    words = ["ffmpeg", "-nostdin", "-nostats", "-progress", "pipe:1", *inputs, "-t", "20", "-f", "null", "-"]
    assert start(*words, waits=False).end() == ("COMPLETED", 20, 20, "seconds")


def test_ninja(start: Start, tmp_path: Path) -> None:
    rule = "rule step\n  command = while [ ! -e go$out ]; do sleep 0.02; done\n"
    builds = "".join(f"build {n}: step{f' {n - 1}' if n > 1 else ''}\n" for n in range(1, 11))
    (tmp_path / "build.ninja").write_text(rule + builds)
    go, ninja = steps(tmp_path), start("ninja")
    for count in (3, 7):
        go(count)
        ninja.reaches(count, 10, "")
    go(10)
    assert ninja.end() == ("COMPLETED", 10, 10, "")


def test_cmake(start: Start, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.10)\nproject(example NONE)\nforeach(n RANGE 1 10)\n"
        '  add_custom_command(OUTPUT ${n} COMMAND sh -c "while [ ! -e go${n} ]; do sleep 0.02; done; touch ${n}" '
        "VERBATIM DEPENDS ${before})\n  list(APPEND before ${n})\nendforeach()\n"
        "add_custom_target(everything ALL DEPENDS ${before})\n"
    )
    if not (shutil.which("cmake") and shutil.which("make")):
        missing("cmake with make")
    subprocess.run(["cmake", "-G", "Unix Makefiles", "-B", "build"], cwd=tmp_path, check=True, capture_output=True)
    go, build = steps(tmp_path / "build"), start("cmake", "--build", "build")
    for count in (3, 7):
        # It tells of each step at its beginning.
        go(count - 1)
        build.reaches(count * 10, 100, "%")
    go(10)
    assert build.end() == ("COMPLETED", 100, 100, "%")


def test_pytest(start: Start, tmp_path: Path) -> None:
    for n in range(1, 11):
        wait = f"import os, time\ndef test():\n    while not os.path.exists('go{n}'): time.sleep(0.02)\n"
        (tmp_path / f"test_{n:02}.py").write_text(wait)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider -p no:asyncio\n")
    go, tests = steps(tmp_path), start(sys.executable, "-m", "pytest", PYTEST_ADDOPTS="")
    for count in (3, 7):
        go(count)
        tests.reaches(count * 10, 100, "%")
    go(10)
    assert tests.end() == ("COMPLETED", 100, 100, "%")


def test_one_phase_after_the_other(start: Start) -> None:
    script = (
        "for n in 1 2 3 4; do echo file $n/4; done; read x; for n in 25 50 75 100; do echo $n%; done; read x; "
        "printf '512 bytes copied, 1 s, 5 kB/s\n1024 bytes copied, 2 s, 5 kB/s\n'; read x"
    )
    phases = start("sh", "-c", script)
    for progress, size, unit in ((4, 4, ""), (100, 100, "%"), (1024, 0, "bytes")):
        phases.reaches(progress, size, unit)
        phases.feed(b"\n")
    assert phases.end() == ("COMPLETED", 1024, 0, "bytes")
    # A watcher never saw a number with the size or the unit of another.
    true = {(0, 0, ""), *((n, 4, "") for n in range(5)), *((n, 100, "%") for n in (25, 50, 75, 100))}
    true |= {(n, size, "") for n, size, _ in true} | {(n, 0, unit) for n in (512, 1024) for unit in ("", "bytes")}
    assert {state[1:] for state in phases.states} <= true
