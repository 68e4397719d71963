"""A real PostgreSQL for the tests: made anew in a temporary folder, on a free loopback port."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self


def find_binaries() -> Path | None:
    """The folder with `initdb` and `postgres`, or None if PostgreSQL is not installed."""
    candidates = [Path(path).resolve().parent for path in [shutil.which("postgres")] if path]
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((c for c in candidates if (c / "initdb").exists() and (c / "postgres").exists()), None)


def unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root: the user to run it as, or None for ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def as_user(user: str | None) -> list[str]:
    """By a program of its own: with Popen's `user`, Python forks, and gRPC's threads do not survive that."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"] if user else []


class Postgres:
    """One server; `database` makes a new, empty database in it. `primary`: the one that this is a standby of."""

    def __init__(self, binaries: Path, primary: "Postgres | None" = None) -> None:
        self._binaries = binaries
        self._primary = primary
        self._user = unprivileged_user()
        self._folder = Path(tempfile.mkdtemp(prefix="headway-postgres-"))
        self._databases = 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if self._user:
            shutil.chown(self._folder, self._user)
        data = str(self._folder / "data")
        if self._primary is None:
            self._run("initdb", "-D", data, "-U", "headway", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        else:
            source = ("-h", "127.0.0.1", "-p", str(self._primary.port), "-U", "headway")
            self._run("pg_basebackup", "-D", data, *source, "-R", "-X", "stream", "-c", "fast", "-N")
        self.start()
        return self

    @property
    def sockets(self) -> Path:
        """The folder of its Unix socket."""
        return self._folder

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._folder),
            "max_connections": "100",
        }
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*as_user(self._user), str(self._binaries / "postgres"), "-D", str(self._folder / "data"), *flags],
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-t", "30", retry=True)

    def promote(self) -> None:
        """Let this standby be a primary."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", "promote")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; "immediate" as a crash would."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", mode, "-w", "stop")
        if self._process is not None:
            self._process.wait(timeout=30)

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"test{self._databases}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "headway", name)
        return f"postgresql://headway@127.0.0.1:{self.port}/{name}"

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self.stop("immediate")
            self._process.wait(timeout=30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str, retry: bool = False) -> None:
        for tries_left in reversed(range(300 if retry else 1)):
            result = subprocess.run(
                [*as_user(self._user), str(self._binaries / program), *arguments],
                cwd=self._folder,
                capture_output=True,
                text=True,
                check=False,
            )
            if result.returncode == 0:
                return
            if tries_left == 0:
                raise RuntimeError(f"{program} failed: {result.stderr or result.stdout}")
            time.sleep(0.1)  # Its own wait ends at once while nobody listens yet.
