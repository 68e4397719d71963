"""What servers that share a database learn of each other."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from headway_server.domain.shared_clock import Correction
from headway_server.storage.database import migrate, open_engine
from headway_server.storage.servers import Servers
from headway_server.storage.store import Store
from tests.support.postgres import Postgres


@pytest.fixture(scope="module")
def url(postgresql: Postgres) -> str:
    return postgresql.database()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    engine = open_engine(url)
    migrate(engine)
    with closing(engine):
        found = Store(engine)
        engine.database.execute_sql("DELETE FROM server")
        engine.database.execute_sql("DELETE FROM fact")
        yield found


def test_a_server_alone_waits_for_nobody(store: Store) -> None:
    servers = Servers(store.database, "a" * 32)
    assert servers.beat(1).heard_until is None
    beat = servers.beat(2)
    assert beat.heard_until is None
    assert abs(beat.database_time - store.now()) < 10_000_000
    assert beat.correction == Correction()


def test_what_a_connected_server_has_not_committed_is_waited_for(store: Store, url: str) -> None:
    one, other = Servers(store.database, "a" * 32), Servers(store.database, "b" * 32)
    other.beat(5)
    assert one.beat(9).heard_until is None, "it has no connection: it was killed"
    with psycopg.connect(url, application_name="headway " + "b" * 32):
        assert one.beat(9).heard_until == 5
        other.beat(7)
        assert one.beat(9).heard_until == 7
        other.leave()
        assert one.beat(9).heard_until is None


def test_of_two_corrections_the_first_holds(store: Store) -> None:
    one, other = Servers(store.database, "a" * 32), Servers(store.database, "b" * 32)
    with store.transaction():
        one.agree(Correction(), Correction(5, 1))
    with store.transaction():
        other.agree(Correction(), Correction(6, 1))
    assert other.beat(1).correction == Correction(5, 1)
    with store.transaction():
        other.agree(Correction(5, 1), Correction(7, 2))
    assert one.beat(1).correction == Correction(7, 2)
