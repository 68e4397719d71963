"""A server that cannot serve well refuses to start: one line on standard error that says what to do, exit status 1."""

import os
import re
import secrets
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.mount import read_only, small_disk
from tests.support.postgres import Postgres
from tests.support.server import ServerProcess

PASSWORD = "swordfish"


def refusal(folder: Path, *arguments: str, listen: str = "127.0.0.1:0", status: int = 1) -> str:
    """What a server says that must not start."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADWAY_")}
    ended = subprocess.run(
        [sys.executable, "-m", "headway_server", "--listen", listen, "--http", "", *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
        env={**environment, "XDG_DATA_HOME": str(folder)},
    )
    assert ended.stdout == ""
    assert ended.stderr.startswith("headway serve: "), ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.returncode == status
    assert PASSWORD not in ended.stderr
    return ended.stderr


def create(server: ServerProcess) -> str:
    """A new job; its id."""
    with grpc.insecure_channel(server.address) as channel:
        job = JobServiceStub(channel).CreateJob(pb.CreateJobRequest(session_id="s"), timeout=5)
    return job.id


def has(server: ServerProcess, job_id: str) -> bool:
    with grpc.insecure_channel(server.address) as channel:
        try:
            JobServiceStub(channel).GetJob(pb.GetJobRequest(session_id="s", job_id=job_id), timeout=5)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND
            return False
    return True


def test_a_second_server_on_the_same_file(own_server: ServerProcess, tmp_path: Path) -> None:
    said = refusal(tmp_path, "--database", own_server.database)
    assert "another Headway server" in said
    assert str(tmp_path / "headway.db") in said
    create(own_server)


@pytest.mark.parametrize("way", ["symlink", "folder", "dots"])
def test_a_second_server_by_another_path(own_server: ServerProcess, tmp_path: Path, way: str) -> None:
    """It is the file that matters, by whatever name."""
    (tmp_path / "link.db").symlink_to(tmp_path / "headway.db")
    (tmp_path / "folder").symlink_to(tmp_path)
    paths = {"symlink": "link.db", "folder": "folder/headway.db", "dots": f"../{tmp_path.name}/headway.db"}
    assert "another Headway server" in refusal(tmp_path, "--database", f"sqlite:///{tmp_path / paths[way]}")
    create(own_server)


def test_a_second_server_on_the_same_port(own_server: ServerProcess, tmp_path: Path) -> None:
    """With another database: else that would be the reason."""
    database = f"sqlite:///{tmp_path / 'other.db'}"
    said = refusal(tmp_path, "--database", database, listen=own_server.address)
    assert own_server.address in said
    assert "Stop the other program" in said
    create(own_server)
    with ServerProcess(tmp_path, database=database):
        """The refused one has let go of its file."""


def test_a_port_that_another_program_has(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert address in refusal(tmp_path, "--database", f"sqlite:///{tmp_path / 'x.db'}", listen=address)


def test_a_file_is_free_again_after_its_server_was_killed(own_server: ServerProcess) -> None:
    job_id = create(own_server)
    own_server.kill()
    own_server.start()
    assert has(own_server, job_id)


def test_several_servers_share_a_postgresql_database(postgresql: Postgres, tmp_path: Path) -> None:
    """With one session key. The password in the URL is in nothing that they print."""
    url = postgresql.database().replace("headway@", f"headway:{PASSWORD}@")
    key = ("--session-key", secrets.token_hex(32))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with (
        ServerProcess(tmp_path / "a", *key, database=url) as one,
        ServerProcess(tmp_path / "b", *key, database=url) as other,
    ):
        assert has(other, create(one))
        assert has(one, create(other))
        said = refusal(tmp_path, "--database", url)
        assert "another session key" in said
        assert PASSWORD not in one.greeting + one.log + other.log


def test_a_newer_schema_is_refused(own_server: ServerProcess, tmp_path: Path) -> None:
    job_id = create(own_server)
    own_server.stop()
    database = tmp_path / "headway.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("INSERT INTO schema_migration (name, applied) VALUES ('9999_later', '2040-01-01')")
        connection.commit()
    said = refusal(tmp_path, "--database", own_server.database)
    assert "newer Headway" in said
    assert "9999_later" in said
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM schema_migration WHERE name = '9999_later'")
        connection.commit()
    own_server.start()
    assert has(own_server, job_id)


def test_an_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """The oldest of all: a file without any table."""
    with closing(sqlite3.connect(tmp_path / "headway.db")) as connection:
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    with ServerProcess(tmp_path) as server:
        assert has(server, create(server))


def test_an_empty_file_is_an_empty_database(tmp_path: Path) -> None:
    (tmp_path / "headway.db").touch()
    with ServerProcess(tmp_path) as server:
        assert has(server, create(server))


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path, "--database", f"sqlite:///{tmp_path}")


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refusal(tmp_path, "--database", f"sqlite:///{tmp_path / 'file' / 'headway.db'}")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"This is no database. " * 500, id="text"),
        pytest.param(b"SQLite format 3\0" + bytes(range(256)) * 40, id="only the head of one"),
    ],
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "precious.txt"
    file.write_bytes(content)
    assert str(file) in refusal(tmp_path, "--database", f"sqlite:///{file}")
    assert file.read_bytes() == content


def test_the_database_of_another_program_is_refused(tmp_path: Path) -> None:
    """It has a table `job` of its own. The refusal leaves it as it was."""
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE job (id INTEGER PRIMARY KEY, x TEXT)")
        connection.commit()
    refusal(tmp_path, "--database", f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables <= {"job", "schema_migration"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that can be made read-only, even for root."""
    if os.geteuid() != 0:
        (tmp_path / "folder").mkdir()
        yield tmp_path / "folder"
        return
    with small_disk(tmp_path / "folder", "1m") as disk:
        yield disk


def test_a_folder_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    with read_only(folder):
        said = refusal(tmp_path, "--database", f"sqlite:///{folder / 'headway.db'}")
    assert str(folder) in said
    assert re.search("cannot (be written|write)", said)


def test_a_file_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    file = folder / "headway.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE x (y)")
        connection.commit()
    (folder / "headway.db.lock").touch()
    with read_only(folder):
        assert str(folder) in refusal(tmp_path, "--database", f"sqlite:///{file}")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "headway.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///~nobody-of-that-name/headway.db",
        "sqlite:////" + "x" * 300,
        f"mysql://headway:{PASSWORD}@127.0.0.1/headway",
        f"postgresql://headway:{PASSWORD}@127.0.0.1:port/headway",
        f"postgresql://headway:{PASSWORD}@[::1/headway",
        f"postgresql://headway:{PASSWORD}@127.0.0.1:1/headway",
        f"postgres://headway:{PASSWORD}@127.0.0.1:1/headway",
        f"postgresql://headway@127.0.0.1:1/headway?password={PASSWORD}",
        f"postgresql://headway@127.0.0.1:1/headway?unknown={PASSWORD}",
    ],
)
def test_a_database_url_that_cannot_be(tmp_path: Path, url: str) -> None:
    assert "--database" in refusal(tmp_path, "--database", url)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--listen", "127.0.0.1:70000"), 1),
        (("--listen", "127.0.0.1"), 1),
        (("--listen", "0.0.0.0:0"), 1),
        (("--listen", "nowhere.invalid:5", "--insecure"), 1),
        (("--config", "/does/not/exist"), 1),
        (("--config", "/"), 1),
        (("--config", "/dev/zero"), 1),
        (("--session-key", "abc"), 1),
        (("--session-key", "@/dev/zero"), 1),
        (("--http", "a..b:1"), 1),
        (("--retention", "9" * 400 + "d"), 1),
        (("--max-session-jobs", "1" + "0" * 30), 1),
        (("--max-message-bytes", str(2**31)), 1),
        (("a\nb",), 2),
        (("--shutdown-grace", "\udcff"), 1),
        (("--no-such-flag",), 2),
        (("--retention",), 2),
        (("surplus",), 2),
    ],
)
def test_a_setting_that_cannot_be(tmp_path: Path, arguments: tuple[str, ...], status: int) -> None:
    refusal(tmp_path, "--database", f"sqlite:///{tmp_path / 'x.db'}", *arguments, status=status)


@pytest.mark.parametrize("key", ["", "garbage\n", "ab" * 31 + "\n"])
def test_a_session_key_file_that_cannot_be(tmp_path: Path, key: str) -> None:
    (tmp_path / "headway.session-key").write_text(key)
    assert "headway.session-key" in refusal(tmp_path, "--database", f"sqlite:///{tmp_path / 'x.db'}")


def test_another_session_key_than_the_file_was_written_with(own_server: ServerProcess, tmp_path: Path) -> None:
    own_server.stop()
    said = refusal(tmp_path, "--database", own_server.database, "--session-key", "ab" * 32)
    assert "another session key" in said


def test_nobody_reads_the_greeting(tmp_path: Path) -> None:
    """`headway serve | true`: the server serves, or ends with a line; it shows no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "headway_server", "--listen", address, "--http", ""]
    database = ["--database", f"sqlite:///{tmp_path / 'x.db'}"]
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen([*command, *database], stdout=writer, stderr=errors)
    os.close(writer)
    try:
        with grpc.insecure_channel(address) as channel:
            call = pb.CreateJobRequest(session_id="s")
            JobServiceStub(channel).CreateJob(call, timeout=10, wait_for_ready=True)
        process.terminate()
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "errors").read_text() == ""
