"""An UPDATE of the job's row and its COMMIT for each report, by psycopg 3 on PostgreSQL with synchronous_commit.

In autocommit mode, where both are one round trip; psycopg prepares what it runs often.
"""

from dataclasses import dataclass

from psycopg import Connection, connect
from psycopg.rows import TupleRow

from benchmarks.peers.measure import JOBS, PROCESSES, Failed, OneByOne, Peer, Teller, Way
from benchmarks.peers.servers import Postgres, Servers


class Updates(OneByOne):
    def __init__(self, url: str, number: int) -> None:
        self._connection: Connection[TupleRow] = connect(url, autocommit=True)
        self._first = number * JOBS

    def report(self, progress: int) -> None:
        row = self._first + progress % JOBS
        self._connection.execute("UPDATE job SET progress = %s WHERE id = %s", (progress, row))

    def stored(self) -> int:
        row = self._first + self.told % JOBS
        found = self._connection.execute("SELECT progress FROM job WHERE id = %s", (row,)).fetchone()
        return int(found[0]) if found else 0

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True, slots=True)
class By(Way):
    url: str
    chunk: int = 20

    def open(self, number: int) -> Teller:
        return Updates(self.url, number)


def update(servers: Servers) -> Peer:
    postgres = servers.of(Postgres)
    url = postgres.database()
    with connect(url) as connection:
        connection.execute("CREATE TABLE job (id int PRIMARY KEY, progress bigint NOT NULL)")
        connection.execute("INSERT INTO job SELECT n, 0 FROM generate_series(0, %s - 1) n", (JOBS * PROCESSES,))
        for setting in ("synchronous_commit", "fsync"):
            if connection.execute(f"SHOW {setting}").fetchone() != ("on",):
                raise Failed(f"PostgreSQL would not be durable: {setting} is not on")
    return Peer("PostgreSQL UPDATE + COMMIT, psycopg", By(url), postgres, durable=True, goals=(10, None))


PEERS = (update,)
