"""Files that a server is told to use and that are not its own: refused in one line, and left as they are."""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from headway_server.storage.database import StartError, open_engine, session_key
from tests.faults.test_two_servers import refusal
from tests.support.server import ServerProcess

NOBODY = 65_534


def _device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("making a device needs root")
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    path.chmod(0o666)


def _pipe(path: Path) -> None:
    os.mkfifo(path)
    path.chmod(0o666)


def _of_another_user(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    path.touch(0o666)
    path.chmod(0o666)
    os.chown(path, NOBODY, NOBODY)


def _text(path: Path) -> None:
    path.write_text("root:x:0:0:root:/root:/bin/bash\n")
    path.chmod(0o644)


def _link_to_a_device(path: Path) -> None:
    _device(path.with_name("device"))
    path.symlink_to("device")


def _link_to_a_text(path: Path) -> None:
    _text(path.with_name("text"))
    path.symlink_to("text")


Maker = Callable[[Path], None]
KINDS = [_device, _pipe, _of_another_user, _text, _link_to_a_device, _link_to_a_text]


def look(folder: Path) -> list[tuple[str, int, int, int, bytes]]:
    """All that is in the folder, and what it is."""
    found = []
    for path in sorted(folder.iterdir()):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found.append((path.name, about.st_mode, about.st_uid, about.st_size, content))
    return found


@pytest.mark.parametrize("make", KINDS)
def test_a_database_that_is_no_file_of_ours_is_refused_and_left_alone(tmp_path: Path, make: Maker) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o755)
    make(folder / "headway.db")
    before = look(folder)
    with pytest.raises(StartError, match=re.escape(str(folder))):
        open_engine(f"sqlite:///{folder / 'headway.db'}")
    assert look(folder) == before, "nothing is made beside it either"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


@pytest.mark.parametrize("make", [_device, _pipe, _of_another_user, _link_to_a_text])
@pytest.mark.parametrize("suffix", [".lock", "-wal", "-shm", "-journal"])
def test_a_file_beside_the_database_that_is_not_ours(tmp_path: Path, suffix: str, make: Maker) -> None:
    file = tmp_path / f"headway.db{suffix}"
    make(file)
    about = file.lstat()
    with pytest.raises(StartError, match=re.escape(str(file))):
        open_engine(f"sqlite:///{tmp_path / 'headway.db'}")
    assert (file.lstat().st_mode, file.lstat().st_ino) == (about.st_mode, about.st_ino)


def test_a_device_in_place_of_a_database(tmp_path: Path) -> None:
    _device(tmp_path / "null")
    assert "is not a regular file" in refusal(tmp_path, "--database", f"sqlite:///{tmp_path / 'null'}")
    assert stat.S_IMODE((tmp_path / "null").stat().st_mode) == 0o666


@pytest.mark.parametrize("make", [_device, _pipe, _text, _link_to_a_device])
def test_a_session_key_file_that_is_no_key(tmp_path: Path, make: Maker) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    make(folder / "headway.session-key")
    before = look(folder)
    engine = open_engine(f"sqlite:///{tmp_path / 'headway.db'}")
    with pytest.raises(StartError, match=r"headway\.session-key"):
        session_key(engine, "", folder)
    engine.close()
    assert look(folder) == before


def test_a_session_key_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "headway.session-key").write_bytes(b"\xff\xfe" * 32)
    assert "is not a text" in refusal(tmp_path, "--database", f"sqlite:///{tmp_path / 'x.db'}")


def test_what_the_server_makes_is_for_its_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    previous = os.umask(0)
    try:
        with ServerProcess(tmp_path, database=f"sqlite:///{folder / 'headway.db'}"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            names = sorted(path.name for path in folder.iterdir())
            assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.iterdir()} == dict.fromkeys(
                names, "0o600"
            )
            assert {"headway.db", "headway.db-wal", "headway.db-shm", "headway.db.lock"} <= set(names)
    finally:
        os.umask(previous)


def test_a_database_that_others_can_read_is_told_of_and_left_so(own_server: ServerProcess, tmp_path: Path) -> None:
    own_server.stop()
    (tmp_path / "headway.db").chmod(0o644)
    own_server.start()
    assert "chmod 600" in own_server.log
    assert stat.S_IMODE((tmp_path / "headway.db").stat().st_mode) == 0o644
