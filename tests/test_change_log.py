"""The log of changes: each commit is found exactly once, in whatever order transactions begin and commit."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headway_server.domain.job import Key
from headway_server.storage.change_log import ENTRIES_MAX, ChangeLog, Snapshot, current_snapshot
from headway_server.storage.database import migrate, open_engine
from headway_server.storage.store import Store
from tests.support.postgres import Postgres

WRITERS = 4

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["begin", "commit", "rollback"]), st.integers(0, WRITERS - 1)),
        st.just(("look", 0)),
    ),
    max_size=30,
)


@pytest.fixture(scope="module")
def url(postgresql: Postgres) -> str:
    found = postgresql.database()
    engine = open_engine(found)
    migrate(engine)
    engine.close()
    return found


@pytest.fixture(scope="module")
def stores(url: str) -> Iterator[list[Store]]:
    """A reader, and writers with a connection each."""
    with ExitStack() as open_engines:
        engines = [open_engine(url) for _ in range(WRITERS + 1)]
        for engine in engines:
            open_engines.callback(engine.close)
        yield [Store(engine) for engine in engines]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(operations=OPERATIONS)
def test_each_commit_is_found_once_however_late_it_comes(
    stores: list[Store], operations: list[tuple[str, int]]
) -> None:
    reader, *writers = stores
    log = ChangeLog(reader.database, "reader")
    began: dict[int, Key] = {}
    committed: list[Key] = []
    found: list[Key] = []
    snapshot = current_snapshot(stores[0].database)

    def look() -> None:
        nonlocal snapshot
        news = log.look(snapshot)
        assert news.keys is not None
        found.extend(news.keys)
        snapshot = news.snapshot

    for number, (operation, writer) in enumerate(operations):
        database = writers[writer].database
        if operation == "look":
            look()
        elif operation == "begin" and writer not in began:
            database.begin()
            began[writer] = ("session", f"{number:032x}")
            ChangeLog(database, f"writer {writer}").add([began[writer]])
        elif operation == "commit" and writer in began:
            database.commit()
            committed.append(began.pop(writer))
        elif operation == "rollback" and writer in began:
            database.rollback()
            del began[writer]
    for writer in began:
        writers[writer].database.rollback()
    look()
    look()
    assert sorted(found) == sorted(committed)


def test_a_server_does_not_read_its_own_entries(stores: list[Store]) -> None:
    log = ChangeLog(stores[0].database, "own")
    before = current_snapshot(stores[0].database)
    with stores[0].transaction():
        log.add([("session", "0" * 32)])
    assert log.look(before).keys == frozenset()
    assert ChangeLog(stores[1].database, "other").look(before).keys == frozenset({("session", "0" * 32)})


def test_what_is_forgotten_is_not_missed_in_silence(stores: list[Store]) -> None:
    reader, writer = ChangeLog(stores[0].database, "reader"), stores[1]
    log = ChangeLog(writer.database, "writer")
    before = current_snapshot(stores[0].database)
    with writer.transaction():
        log.add([("session", "1" * 32)])
    middle = current_snapshot(stores[0].database)
    with writer.transaction():
        log.forget(middle)
    assert reader.look(before).keys is None
    after = reader.look(before).snapshot
    assert reader.look(middle).keys == frozenset()
    assert reader.look(after).keys == frozenset()


def test_an_entry_that_commits_late_outlives_what_was_forgotten_meanwhile(stores: list[Store]) -> None:
    reader, late, other = ChangeLog(stores[0].database, "reader"), stores[1], stores[2]
    before = current_snapshot(stores[0].database)
    late.database.begin()
    ChangeLog(late.database, "late").add([("session", "2" * 32)])
    seen = reader.look(before).snapshot
    with other.transaction():
        ChangeLog(other.database, "other").forget(seen)
    late.database.commit()
    assert reader.look(seen).keys == frozenset({("session", "2" * 32)})


def test_a_snapshot_of_the_future_finds_nothing_and_says_so(stores: list[Store]) -> None:
    """As after the database was restored from a backup."""
    log = ChangeLog(stores[0].database, "reader")
    assert log.look(Snapshot(current_snapshot(stores[0].database).xmax + 1000)).keys is None


def test_a_server_that_is_far_behind_starts_anew(stores: list[Store]) -> None:
    log = ChangeLog(stores[0].database, "reader")
    before = current_snapshot(stores[0].database)
    with stores[1].transaction():
        stores[1].database.execute_sql(
            "INSERT INTO change_log (xid, server, jobs) "
            "SELECT (pg_current_xact_id()::text::bigint << 20) + n, 'x', '[]' FROM generate_series(0, %s) AS n",
            (ENTRIES_MAX,),
        )
    assert log.look(before).keys is None
    with stores[1].transaction():
        stores[1].database.execute_sql("DELETE FROM change_log")


@given(xmax=st.integers(3, 2**62), running=st.lists(st.integers(3, 2**62), max_size=5))
def test_a_snapshot_is_what_its_text_says(xmax: int, running: list[int]) -> None:
    snapshot = Snapshot(xmax, tuple(running))
    assert Snapshot.parse(str(snapshot)) == snapshot
