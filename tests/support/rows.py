"""Fills a database with many jobs in a moment, without a server."""

from collections.abc import Iterator
from contextlib import contextmanager

from headway_server.domain.change import Change
from headway_server.domain.job import Job
from headway_server.service.sealed_tokens import SessionHasher
from headway_server.storage import rows
from headway_server.storage.database import migrate, open_engine
from headway_server.storage.store import Store

SESSION_KEY = "5e" * 32


def session_hash(session: str) -> str:
    """What a server with SESSION_KEY makes of a session id."""
    return SessionHasher(bytes.fromhex(SESSION_KEY))(session)


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """The store of a database that no server has open."""
    engine = open_engine(url)
    try:
        migrate(engine)
        yield Store(engine)
    finally:
        engine.close()


def multiply(store: Store, job: Job, count: int, sessions: int = 0) -> None:
    """This job `count` times: with ids that count up from 1, each created a millisecond after the one before.

    All in its session, or in so many made-up `sessions`, whose hashes count up from 0.
    """
    with store.transaction():
        store.save([Change(job, created=True, changed=True)])
    if store.engine.shared:
        series, hexadecimal = f"generate_series(1, {count}) AS series(n)", "lpad(to_hex({}), 32, '0')"
    else:
        series = f"(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count}) SELECT n FROM s)"
        hexadecimal = "printf('%032x', {})"
    made = {
        "id": hexadecimal.format("n"),
        "create_time": f"{job.create_time} + n * 1000",
        "update_time": f"{job.update_time} + n * 1000",
    }
    if sessions:
        made["session_hash"] = hexadecimal.format(f"(n - 1) * {sessions} / {count}")
    columns = ", ".join(f'"{name}"' for name in rows.COLUMNS)
    values = ", ".join(made.get(name, f'job."{name}"') for name in rows.COLUMNS)
    with store.transaction():
        if store.engine.shared:
            # A busy machine takes longer for so many rows than a server lets a statement take.
            store.database.execute_sql("SET LOCAL statement_timeout = 0")
        store.database.execute_sql(
            f"INSERT INTO job ({columns}) SELECT {values} FROM job, {series} WHERE job.id = '{job.id}'"
        )
        store.database.execute_sql(f"DELETE FROM job WHERE id = '{job.id}'")
