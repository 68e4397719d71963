"""The servers that peers need: started on loopback when the first peer asks, at rest while others are measured."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Self, TypeVar

from benchmarks.peers.measure import PEER_TIMEOUT, Failed, Missing, Server
from tests.support import postgres


class Owned(Server, AbstractContextManager["Owned"]):
    """A server that `Servers` starts and ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder


Kind = TypeVar("Kind", bound=Owned)


class Servers(ExitStack):
    """Each kind of server once, however many peers share it."""

    def __enter__(self) -> Self:
        super().__enter__()
        self._folder = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="headway-peers-")))
        self._running: dict[type[Owned], Owned] = {}
        return self

    def of(self, kind: type[Kind]) -> Kind:
        """Missing if it is not installed, Failed if it does not start."""
        found = self._running.get(kind)
        if not isinstance(found, kind):
            folder = self._folder / kind.__name__
            folder.mkdir(exist_ok=True)
            found = kind(folder)
            self._running[kind] = self.enter_context(found)
            found.rest()
        return found


def program(name: str, advice: str) -> str:
    """Its path. Missing, with the advice how to install it."""
    # What belongs to this environment goes first, and daemons are where only root looks.
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise Missing(f"{name} is not installed ({advice})")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def other_user(*names: str) -> str | None:
    """Whom a server shall run as that refuses to run as root; None for ourselves."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in names if name in known), "nobody")


class Program(Owned):
    """A server of one process, which is simply stopped while it has nothing to do."""

    def launch(self, command: Sequence[str], ready: Callable[[], bool]) -> None:
        """Starts it, and waits until it is ready. Failed if it ends before."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + PEER_TIMEOUT
        while not ready():
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                said = (self.folder / "log").read_text(errors="replace").strip().splitlines()
                raise Failed(f"{Path(command[0]).name} does not start: {said[-1:]}")
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def rest(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._process.send_signal(signal.SIGCONT)


class NoServer(Owned):
    """For what needs a folder alone."""

    def __exit__(self, *_: object) -> None: ...

    def rest(self) -> None: ...

    def wake(self) -> None: ...


class Redis(Program):
    """Redis that keeps all in memory, its quickest."""

    settings: Sequence[str] = ("--save", "", "--appendonly", "no")

    def __enter__(self) -> Self:
        binary = program("redis-server", "Debian: apt-get install redis-server")
        self.port = free_port()
        place = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder))
        self.launch([binary, *place, *self.settings], lambda: listens(self.port))
        return self

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


class DurableRedis(Redis):
    """Redis that answers once a write is on the disk."""

    settings: Sequence[str] = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")


class Postgres(Owned):
    """PostgreSQL as it comes: synchronous_commit and fsync are on. Its processes sleep while nobody asks them."""

    def __enter__(self) -> Self:
        binaries = postgres.find_binaries()
        if binaries is None:
            raise Missing("PostgreSQL is not installed (Debian: apt-get install postgresql)")
        self._server = postgres.Postgres(binaries)
        try:
            self._server.__enter__()
        except RuntimeError as error:
            self._server.__exit__()
            raise Failed(str(error).partition("\n")[0]) from None
        return self

    def database(self) -> str:
        """The URL of a new one."""
        return self._server.database()

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def rest(self) -> None: ...

    def wake(self) -> None: ...
