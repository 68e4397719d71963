"""PostgreSQL behind PgBouncer: what a pooler drops or shares is noticed before anything is acknowledged."""

import logging

import psycopg
import pytest

from headway.v1 import job_service_pb2 as pb
from headway_server.storage.database import StartError, open_engine
from tests.support.app import RunningApp
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Postgres
from tests.support.refusals import outcome
from tests.support.waiting import until

WANTED = {
    "synchronous_commit": "on",
    "statement_timeout": "15s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "30s",
    "transaction_isolation": "read committed",
    "client_encoding": "UTF8",
}


def session_settings(app: RunningApp) -> dict[str, str]:
    """What holds in the session that writes."""
    found = {}

    def look() -> None:
        for name in WANTED:
            ((found[name],),) = app.app.store.database.execute_sql(f"SHOW {name}").fetchall()

    app.run(app.app.writer.run_task(look))
    return found


def create(app: RunningApp) -> str:
    """How creating a job ends."""
    return outcome(app.stub.CreateJob, pb.CreateJobRequest(session_id="pooled"), timeout=20)


def weaken(database: str) -> None:
    """Let new sessions of a database begin with settings that lose what is acknowledged, and wait for ever."""
    with psycopg.connect(database, autocommit=True) as other:
        name = other.info.dbname
        for setting in (
            "synchronous_commit TO off",
            "statement_timeout TO 0",
            "lock_timeout TO 0",
            "default_transaction_isolation TO serializable",
            "client_encoding TO latin1",
        ):
            other.execute(f"ALTER DATABASE {name} SET {setting}")


def cut(database: str) -> None:
    """End all sessions of a database."""
    with psycopg.connect(database, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.mark.parametrize("ignored", ["", "options,extra_float_digits"])
def test_behind_a_pooler_of_sessions_all_settings_hold(postgresql: Postgres, pgbouncer: str, ignored: str) -> None:
    database = postgresql.database()
    weaken(database)
    with (
        PgBouncer(pgbouncer, postgresql, pool_mode="session", ignore_startup_parameters=ignored) as pooler,
        RunningApp(pooler.url(database)) as app,
    ):
        assert session_settings(app) == WANTED
        assert create(app) == "OK"
        cut(database)
        until(lambda: create(app) == "OK")
        assert session_settings(app) == WANTED


def test_settings_of_a_role_or_database_change_nothing(postgresql: Postgres) -> None:
    """Also those that were made under a running server, and hold from its next connection on."""
    database = postgresql.database()
    with RunningApp(database) as app:
        assert session_settings(app) == WANTED
        weaken(database)
        cut(database)
        until(lambda: create(app) == "OK")
        assert session_settings(app) == WANTED


def test_a_stronger_synchronous_commit_is_kept(postgresql: Postgres) -> None:
    database = postgresql.database()
    with psycopg.connect(database, autocommit=True) as other:
        other.execute(f"ALTER DATABASE {other.info.dbname} SET synchronous_commit TO remote_apply")
    with RunningApp(database) as app:
        assert session_settings(app) == {**WANTED, "synchronous_commit": "remote_apply"}


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("round_robin", ["0", "1"])
def test_a_pooler_that_shares_sessions_is_refused(
    postgresql: Postgres, pgbouncer: str, mode: str, round_robin: str
) -> None:
    settings = {"pool_mode": mode, "server_round_robin": round_robin, "ignore_startup_parameters": "options"}
    with PgBouncer(pgbouncer, postgresql, **settings) as pooler:
        with pytest.raises(StartError, match=r"transaction or statement mode.* use its session mode") as caught:
            open_engine(pooler.url(postgresql.database()))
        assert "\n" not in str(caught.value)


def test_a_pooler_that_begins_to_share_sessions_is_noticed(
    postgresql: Postgres, pgbouncer: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = postgresql.database()
    with (
        PgBouncer(pgbouncer, postgresql, pool_mode="session") as pooler,
        RunningApp(pooler.url(database)) as app,
    ):
        assert create(app) == "OK"
        with psycopg.connect(pooler.url(database), autocommit=True) as other:
            pooler.configure(pool_mode="transaction")
            with caplog.at_level(logging.WARNING):
                cut(database)
                until(lambda: create(app) == "DATABASE_UNAVAILABLE")
                until(lambda: "transaction or statement mode" in caplog.text)
            assert other is not None
        pooler.configure(pool_mode="session")
        cut(database)
        until(lambda: create(app) == "OK")
