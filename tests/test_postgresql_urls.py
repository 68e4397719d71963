"""URLs of PostgreSQL: all that libpq takes is handed on or refused by name, and nothing secret is shown."""

from pathlib import Path

import psycopg
import pytest

from headway_server.storage import postgresql
from headway_server.storage.database import StartError, open_engine
from tests.support.postgres import Postgres

SECRET = "sw0rdf1sh"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings for libpq of the user who runs the tests."""
    for name in ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE", "PGTARGETSESSIONATTRS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://u:{SECRET}@db.example:5433/jobs", "postgresql://db.example:5433/jobs"),
        (f"postgres://u:{SECRET}%40%2F@db.example/jobs", "postgresql://db.example:5432/jobs"),
        (f"postgresql://u:{SECRET}@a:1,b:2/jobs?target_session_attrs=primary", "postgresql://a:1,b:2/jobs"),
        (f"postgresql://u:{SECRET}@[::1]:5/jobs", "postgresql://[::1]:5/jobs"),
        (f"postgresql:///jobs?host=/run/postgresql&password={SECRET}", "postgresql://%2Frun%2Fpostgresql:5432/jobs"),
        (f"postgresql://h/jobs?sslmode=verify-full&sslkey=k&sslpassword={SECRET}", "postgresql://h:5432/jobs"),
        (f"postgresql://h/jobs?passfile=/home/{SECRET}&options=-c%20x.y%3D{SECRET}", "postgresql://h:5432/jobs"),
        (f"postgresql://u:{SECRET}?#@h/jobs", "postgresql://h:5432/jobs"),
    ],
)
def test_a_url_is_shown_without_secrets(url: str, shown: str) -> None:
    assert postgresql.shown(postgresql.parse(url)) == shown


def test_what_is_special_in_a_password_arrives() -> None:
    assert postgresql.parse("postgresql://u:p%40s%2Fs%3A%25%20@h/d")["password"] == "p@s/s:% "


@pytest.mark.parametrize(
    ("url", "blamed"),
    [
        (f"postgresql://u:p@{SECRET}@h/jobs", "percent-encode"),
        (f"postgresql://u:p/{SECRET}@h/jobs", "percent-encode"),
        (f"postgresql://u:12/{SECRET}?a=b@h/jobs", "percent-encode"),
        (f"postgresql://u:{SECRET}%zz@h/jobs", "is not a PostgreSQL URL; write"),
        (f"postgresql://u:{SECRET}/jobs", "port that is not a number"),
        (f"postgresql://u:{SECRET}@[::1/jobs", "is not a PostgreSQL URL; write"),
        (f"postgresql://u:{SECRET}@h/jobs?sslmod=require", 'invalid URI query parameter: "sslmod"'),
        (f"postgresql://u:{SECRET}@a,b/jobs?target_session_attrs=standby", "read-write"),
        (f"postgresql://u:{SECRET}@a,b/jobs?target_session_attrs=prefer-standby", "read-write"),
        (f"postgresql://u:{SECRET}@h/jobs?replication=database", "remove the parameter replication"),
        (f"postgresql://u:{SECRET}@127.0.0.1:1/jobs?sslmode=maybe", "cannot be reached"),
        (f"postgresql://u:{SECRET}@127.0.0.1:1/jobs", "cannot be reached"),
        ("postgresql://?host=127.0.0.1&port=1", "cannot be reached"),
        ("postgresql://?service=absent", 'definition of service "absent" not found'),
    ],
)
def test_a_url_that_cannot_be_is_refused_in_one_line(url: str, blamed: str) -> None:
    with pytest.raises(StartError) as caught:
        open_engine(url)
    assert blamed in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def connected(url: str) -> tuple[str, dict[str, str]]:
    """The name of a database, and what libpq knows of the connection."""
    engine = open_engine(url)
    connection = engine.database.connection()
    assert isinstance(connection, psycopg.Connection)
    info = connection.info
    parameters = info.get_parameters()
    engine.close()
    return engine.name, parameters


def test_parameters_of_the_url_win_over_ours(postgresql: Postgres) -> None:
    database = postgresql.database()
    _, parameters = connected(database)
    assert parameters["application_name"] == "headway"
    assert parameters["target_session_attrs"] == "read-write"
    query = "application_name=mine&connect_timeout=7&keepalives_idle=60&options=-c%20work_mem%3D8MB"
    _, parameters = connected(f"{database}?{query}")
    assert parameters["application_name"] == "mine"
    assert parameters["connect_timeout"] == "7"
    assert parameters["keepalives_idle"] == "60"
    assert parameters["options"] == "-c work_mem=8MB"
    assert parameters["keepalives_count"] == "3"


def test_a_service_names_the_place(postgresql: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also its parameters win over ours, but not over those of the URL."""
    name = postgresql.database().rpartition("/")[2]
    services = tmp_path / "services"
    services.write_text(
        f"[jobs]\nhost=127.0.0.1\nport={postgresql.port}\nuser=headway\ndbname={name}\n"
        f"password={SECRET}\napplication_name=of_service\nconnect_timeout=8\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    shown, parameters = connected("postgresql://?service=jobs&connect_timeout=9")
    assert shown == f"postgresql://127.0.0.1:{postgresql.port}/{name}"
    assert parameters["application_name"] == "of_service"
    assert parameters["connect_timeout"] == "9"
    monkeypatch.setenv("PGSERVICE", "jobs")
    assert connected("postgresql://")[0] == shown


def test_a_socket_and_a_variable(postgresql: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    name = postgresql.database().rpartition("/")[2]
    monkeypatch.setenv("PGAPPNAME", "of_variable")
    for url in (
        f"postgresql://headway@/{name}?host={postgresql.sockets}&port={postgresql.port}",
        f"postgresql://headway@{str(postgresql.sockets).replace('/', '%2F')}:{postgresql.port}/{name}",
    ):
        _, parameters = connected(url)
        assert parameters["host"] == str(postgresql.sockets)
        assert parameters["application_name"] == "of_variable"


def test_the_first_of_several_hosts_may_be_unreachable(postgresql: Postgres) -> None:
    name = postgresql.database().rpartition("/")[2]
    shown, parameters = connected(f"postgresql://headway@127.0.0.1:1,127.0.0.1:{postgresql.port}/{name}")
    assert shown == f"postgresql://127.0.0.1:1,127.0.0.1:{postgresql.port}/{name}"
    assert parameters["port"] == str(postgresql.port)
