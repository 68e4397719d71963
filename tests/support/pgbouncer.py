"""A real PgBouncer in front of a PostgreSQL."""

import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.support.postgres import Postgres, as_user, unprivileged_user
from tests.support.waiting import until


def find_binary() -> str | None:
    """The path of pgbouncer, or None if it is not installed."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


class PgBouncer:
    """A pooler on a free loopback port. `settings` are those of its section [pgbouncer]."""

    def __init__(self, binary: str, postgres: Postgres, **settings: str) -> None:
        self._binary = binary
        self._postgres = postgres
        self._settings = settings
        self._user = unprivileged_user()
        self._folder = Path(tempfile.mkdtemp(prefix="headway-pgbouncer-"))
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def url(self, database: str) -> str:
        """The URL of a database of its PostgreSQL, by way of the pooler."""
        return database.replace(f":{self._postgres.port}/", f":{self.port}/")

    def configure(self, **settings: str) -> None:
        """Change settings while it runs."""
        self._settings |= settings
        self._write()
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def __enter__(self) -> Self:
        self._write()
        if self._user:
            shutil.chown(self._folder, self._user)
        self._process = subprocess.Popen(
            [*as_user(self._user), self._binary, str(self._folder / "pgbouncer.ini")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._listens)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self) -> None:
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "any",
            "admin_users": "headway",
            **self._settings,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        target = f"* = host=127.0.0.1 port={self._postgres.port} user=headway"
        text = "\n".join(["[databases]", target, "[pgbouncer]", *lines, ""])
        (self._folder / "pgbouncer.ini").write_text(text)

    def _listens(self) -> bool:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False
