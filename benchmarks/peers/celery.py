"""Celery's `update_state`, as a task with progress calls it, with its defaults: JSON, results kept for a day."""

from dataclasses import dataclass

import celery
from celery.backends.database import DatabaseBackend
from celery.backends.database.session import SessionManager
from celery.result import AsyncResult

from benchmarks.peers.measure import JOBS, OneByOne, Peer, Teller, Way
from benchmarks.peers.servers import NoServer, Postgres, Redis, Servers


class Forked(SessionManager):
    """Keeps its connections, as it does in the processes that a Celery worker forks, and only there."""

    def __init__(self) -> None:
        super().__init__()
        self.forked = True


class Pooled(DatabaseBackend):
    def __init__(self, url: str, app: celery.Celery) -> None:
        self._connections = Forked()
        super().__init__(url=url, app=app)

    def ResultSession(self, session_manager: SessionManager | None = None) -> object:
        return super().ResultSession(session_manager or self._connections)


class Updates(OneByOne):
    def __init__(self, backend: str, number: int) -> None:
        self._app = celery.Celery("bench", backend=backend, broker="memory://", set_as_current=False)
        self._task = self._app.task(_work)
        self._ids = [f"task-{number}-{job}" for job in range(JOBS)]

    def report(self, progress: int) -> None:
        self._task.update_state(self._ids[progress % JOBS], "PROGRESS", {"current": progress, "total": 10**9})

    def stored(self) -> int:
        info = AsyncResult[None](self._ids[self.told % JOBS], app=self._app).info
        return int(info["current"]) if isinstance(info, dict) else 0

    def close(self) -> None:
        self._app.close()


def _work() -> None:
    """The task whose state is updated; it is not run."""


@dataclass(frozen=True, slots=True)
class By(Way):
    backend: str
    chunk: int

    def open(self, number: int) -> Teller:
        return Updates(self.backend, number)


def on_redis(servers: Servers) -> Peer:
    redis = servers.of(Redis)
    return Peer("Celery update_state, Redis", By(redis.url, 50), redis, goals=(30, None))


def on_sqlite(servers: Servers) -> Peer:
    place = servers.of(NoServer)
    backend = f"{__name__}:Pooled+sqlite:///{place.folder / 'celery.db'}"
    return Peer("Celery update_state, SQLite", By(backend, 5), place, durable=True)


def on_postgresql(servers: Servers) -> Peer:
    postgres = servers.of(Postgres)
    url = postgres.database().replace("postgresql:", "postgresql+psycopg:")
    backend = f"{__name__}:Pooled+{url}"
    return Peer("Celery update_state, PostgreSQL", By(backend, 5), postgres, durable=True)


PEERS = (on_redis, on_sqlite, on_postgresql)
