"""Every class of database error has its treatment; real errors of real databases, met by a call in a running server."""

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import grpc
import peewee
import psycopg
import pytest

from headway.v1 import job_service_pb2 as pb
from headway_server.domain.errors import DatabaseUnavailable, StorageFull
from headway_server.storage import database_errors
from headway_server.storage.database_errors import Treatment, as_job_error, name, treatment
from tests.support.app import RunningApp
from tests.support.postgres import Postgres

DATA = "what a caller sent"

STATES = sorted({code if len(code) == 5 else f"{code}000" for code in database_errors.POSTGRESQL} | {
    "02000", "22001", "22021", "23502", "25006", "25P02", "40001", "40P01", "42501", "42P01", "53200", "53300",
    "55P03", "57P01", "57P03", "58030", "72000", "F0000", "HV000", "P0001", "XX001", "XX002", "ZZ999",
})  # fmt: skip


@pytest.fixture(scope="module")
def failing(postgresql: Postgres) -> Iterator[tuple[RunningApp, "psycopg.Connection[tuple[object, ...]]"]]:
    """A server on a database whose table of jobs refuses new rows with the SQLSTATE that the table `failing` holds."""
    database = postgresql.database()
    with RunningApp(database) as app, psycopg.connect(database, autocommit=True) as other:
        other.execute("CREATE TABLE failing (state text)")
        other.execute(
            f"""CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE code text := (SELECT state FROM failing);
            BEGIN
                IF code IS NOT NULL THEN RAISE EXCEPTION '{DATA}' USING ERRCODE = code, DETAIL = '{DATA}'; END IF;
                RETURN NEW;
            END $$"""
        )
        other.execute("CREATE TRIGGER fail BEFORE INSERT ON job FOR EACH ROW EXECUTE FUNCTION fail()")
        yield app, other


@pytest.mark.parametrize("state", STATES)
def test_a_call_that_meets_an_error_of_postgresql(
    failing: tuple[RunningApp, "psycopg.Connection[tuple[object, ...]]"],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
) -> None:
    app, other = failing
    request = pb.CreateJobRequest(session_id="errors")
    other.execute("INSERT INTO failing VALUES (%s)", (state,))
    with caplog.at_level(logging.WARNING):
        with pytest.raises(grpc.RpcError) as caught:
            app.stub.CreateJob(request, timeout=20)
        other.execute("DELETE FROM failing")
    # Only values that no column takes are a fault of our own; all else passes, or is for the operator.
    ours = state[:2] in ("21", "22", "54") or (state[:2] == "23" and state != "23505")
    full = state == "53100"
    wanted = grpc.StatusCode.INTERNAL if ours else grpc.StatusCode.UNAVAILABLE
    assert caught.value.code() is (grpc.StatusCode.RESOURCE_EXHAUSTED if full else wanted)
    assert state in caplog.text
    assert DATA not in caplog.text
    assert app.stub.CreateJob(request, timeout=20).id


def test_a_fault_of_one_call_is_not_its_neighbours(
    failing: tuple[RunningApp, "psycopg.Connection[tuple[object, ...]]"],
) -> None:
    from tests.support.waiting import held_commits

    app, other = failing
    other.execute(
        "CREATE FUNCTION narrow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.name = 'bad' THEN RAISE EXCEPTION 'no' USING ERRCODE = '22001'; END IF; RETURN NEW; END $$"
    )
    other.execute("CREATE TRIGGER narrow BEFORE INSERT ON job FOR EACH ROW EXECUTE FUNCTION narrow()")
    with held_commits(app) as wait_for:
        calls = [
            app.stub.CreateJob.future(pb.CreateJobRequest(session_id="errors", name=text), timeout=20)
            for text in ("good", "bad", "fine")
        ]
        wait_for(3)
    assert [call.code() for call in calls] == [
        grpc.StatusCode.OK,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.OK,
    ]


def sqlite_error(folder: Path, kind: str) -> sqlite3.Error:
    """A real error of SQLite."""
    path = folder / "some.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
        database.execute("INSERT INTO t VALUES (1, 'a')")
    database.close()
    statement = "INSERT INTO t VALUES (2, 'b')"
    uri = f"file:{path}"
    match kind:
        case "readonly":
            uri += "?mode=ro"
        case "cantopen":
            uri = f"file:{folder}/absent/some.db?mode=ro"
        case "notadb":
            path.write_bytes(b"not a database" * 1000)
        case "corrupt":
            content = bytearray(path.read_bytes())
            content[4096:] = b"\xff" * len(content[4096:])
            path.write_bytes(content)
        case "primarykey":
            statement = "INSERT INTO t VALUES (1, 'b')"
        case "notnull":
            statement = "INSERT INTO t VALUES (2, NULL)"
        case "missing":
            statement = "SELECT * FROM absent"
    try:
        database = sqlite3.connect(uri, uri=True, timeout=0)
        try:
            if kind == "full":
                database.execute("PRAGMA max_page_count = 2")
                statement = "INSERT INTO t VALUES (2, zeroblob(100000))"
            if kind == "busy":
                other = sqlite3.connect(path, isolation_level=None)
                other.execute("BEGIN EXCLUSIVE")
            database.execute(statement)
        finally:
            database.close()
    except sqlite3.Error as error:
        return error
    raise AssertionError(f"no error: {kind}")


@pytest.mark.parametrize(
    ("kind", "wanted", "shown"),
    [
        ("readonly", Treatment.RECONNECT, "8 SQLITE_READONLY"),
        ("cantopen", Treatment.UNAVAILABLE, "14 SQLITE_CANTOPEN"),
        ("notadb", Treatment.UNAVAILABLE, "26 SQLITE_NOTADB"),
        ("corrupt", Treatment.RECONNECT, "SQLITE_CORRUPT"),
        ("full", Treatment.STORAGE_FULL, "13 SQLITE_FULL"),
        ("busy", Treatment.UNAVAILABLE, "5 SQLITE_BUSY"),
        ("primarykey", Treatment.RECONNECT, "1555 SQLITE_CONSTRAINT_PRIMARYKEY"),
        ("notnull", Treatment.BUG, "1299 SQLITE_CONSTRAINT_NOTNULL"),
        ("missing", Treatment.RECONNECT, "1 SQLITE_ERROR"),
    ],
)
def test_an_error_of_sqlite(tmp_path: Path, kind: str, wanted: Treatment, shown: str) -> None:
    raw = sqlite_error(tmp_path, kind)
    # As it comes from the driver, and as peewee wraps it, once and twice.
    once = peewee.OperationalError(raw, *raw.args)
    for error in (raw, once, peewee.OperationalError(once, *once.args)):
        assert treatment(error) is wanted
        assert shown in name(error)
        kind_of_error = StorageFull if wanted is Treatment.STORAGE_FULL else DatabaseUnavailable
        assert type(as_job_error(error)) is kind_of_error


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (1205, Treatment.RETRY),
        (1213, Treatment.RETRY),
        (1020, Treatment.RETRY),
        (1290, Treatment.RECONNECT),
        (2006, Treatment.RECONNECT),
        (2013, Treatment.RECONNECT),
        (1406, Treatment.BUG),
        (1114, Treatment.STORAGE_FULL),
        (4999, Treatment.RECONNECT),
    ],
)
def test_an_error_of_mysql(number: int, wanted: Treatment) -> None:
    """Its drivers raise errors with the number in front of the text."""
    error = peewee.OperationalError(Exception(number, DATA), number, DATA)
    assert treatment(error) is wanted
    assert name(error) == f"{number} Exception"


def test_the_log_names_an_error_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    reports = database_errors.ErrorLog(lambda: now)
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            reports.add(psycopg.errors.ReadOnlySqlTransaction(DATA))
        reports.add(psycopg.errors.AdminShutdown(DATA))
        now += database_errors.ERROR_LOG_INTERVAL
        reports.add(psycopg.errors.ReadOnlySqlTransaction(DATA))
    assert [record.getMessage() for record in caplog.records] == [
        "the database failed: 25006 ReadOnlySqlTransaction",
        "the database failed: 57P01 AdminShutdown",
        "the database failed: 25006 ReadOnlySqlTransaction (999 more since the last log line)",
    ]
