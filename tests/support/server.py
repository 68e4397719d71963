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
from urllib.request import urlopen

from tests.support import loop_gaps

LAG = "headway_event_loop_busy_lag_max_seconds "

ASKED_WITHIN = 2.0
"""Seconds: a server that a test has stopped does not answer."""


class ServerProcess:
    """A server on a free loopback port, with a database in `folder`; it keeps its port over restarts.

    `prefix` is put before its command, and must become the server by exec.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        database: str = "",
        port: int = 0,
        http: str = "127.0.0.1:0",
        environment: Mapping[str, str] = MappingProxyType({}),
        prefix: Sequence[str] = (),
        gap_max: float = loop_gaps.GAP_MAX,
    ) -> None:
        """`prefix`: a command that executes the server's, which is appended to it. `gap_max`: seconds that its event
        loop may stand still."""
        self.gap_max = gap_max
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
        self._prefix = prefix
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
                [*self._prefix, *command, *self._arguments],
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
            self.http_address, self.token = page.netloc, page.fragment.removeprefix("token=")
            loop_gaps.watch(self)
        return self

    def worst_gap(self) -> float:
        """How long its event loop stood still while the process was computing (s); 0 if it cannot be asked."""
        if not self.running or not self.http_address:
            return 0.0
        try:
            with urlopen(f"http://{self.http_address}/metrics", timeout=ASKED_WITHIN) as response:
                lines: list[str] = response.read().decode().splitlines()
        except OSError:
            return 0.0
        return max((float(line.removeprefix(LAG)) for line in lines if line.startswith(LAG)), default=0.0)

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
        loop_gaps.look(self)
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
