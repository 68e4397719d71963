"""A real Headway server in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Self
from urllib.parse import urlsplit


class ServerProcess:
    """A server on a free loopback port, with a database in `folder`; it keeps its port over restarts."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        database: str = "",
        port: int = 0,
        http: str = "127.0.0.1:0",
        environment: Mapping[str, str] = MappingProxyType({}),
        wrapper: Sequence[str] = (),
    ) -> None:
        """`wrapper`: a command that executes the server's, which is appended to it."""
        self.folder = folder
        self.database = database or f"sqlite:///{folder / 'headway.db'}"
        self.address = f"127.0.0.1:{port}"
        self.http_address = http
        """Of its HTTP port; empty: it has none."""
        self.token = ""
        """The admin token of this run, if it has an HTTP port."""
        self.greeting = ""
        self._arguments = arguments
        self._environment = environment
        self._wrapper = wrapper
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start, and wait until it serves."""
        assert not self.running
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADWAY_")}
        command = [sys.executable, "-m", "headway_server", "--listen", self.address, "--database", self.database]
        command += ["--http", self.http_address]
        with (self.folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [*self._wrapper, *command, *self._arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**environment, "XDG_DATA_HOME": str(self.folder), **self._environment},
            )
        assert self._process.stdout is not None
        self.greeting = self._process.stdout.readline()
        if not self.greeting.startswith("headway serving on "):
            self._process.wait()
            self._process.stdout.close()
            raise RuntimeError(f"the server did not start: {self.log.splitlines()[-1:]}")
        self.address = self.greeting.split()[3]
        if self.http_address:
            page = urlsplit(self._process.stdout.readline().split()[1])
            self.http_address = page.netloc
            while "admin token" not in (line := self._process.stdout.readline()):
                assert line
                self.greeting += line
            self.greeting += line
            self.token = Path(line.split()[-1]).read_text().strip()
        return self

    @property
    def log(self) -> str:
        """All that it wrote on standard error."""
        return (self.folder / "server.log").read_text()

    def signal(self, number: int) -> None:
        """Send it a signal, SIGSTOP and SIGCONT for example."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        return self._end(signal.SIGTERM)

    def restart(self) -> Self:
        """Start it again on the same port and database."""
        if self.running:
            self.stop()
        return self.start()

    def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        if self.running:
            self._process.send_signal(number)
        assert self._process.stdout is not None
        status = self._process.wait(timeout=30)
        self._process.stdout.close()
        return status

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
