"""What the demo plays on: a server of its own, a session, and processes that end with it."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import IO, Self

PROCESS_TIMEOUT = 60
"""Seconds that anything may take."""

Process = subprocess.Popen[str]
Stream = int | IO[bytes] | IO[str] | None


class Stage:
    """A server on a free port and a session; all that is started here finds both in its environment.

    What the processes write to standard error goes to a file: the terminal is for the display. RuntimeError, with the
    last of what they wrote, if one ends that should not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.session = token_hex(8)
        self.address = "127.0.0.1:0"
        self._stack = ExitStack()
        self._log = self._stack.enter_context((folder / "log").open("a"))

    def __enter__(self) -> Self:
        self.server = self.start_server()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start_server(self) -> Process:
        """Starts the server, the second time on the same port and database, and waits until it serves."""
        database = f"sqlite:///{self.folder / 'headway.db'}"
        self.server = self.start("-m", "headway_server", "--listen", self.address, "--http", "", "--database", database)
        self.address = self.first_line(self.server).split()[3]
        os.environ.update(HEADWAY_TARGET=self.address, HEADWAY_SESSION=self.session)
        os.environ.update(HEADWAY_SPOOL=str(self.folder / "spool"))
        return self.server

    def kill(self, process: Process) -> None:
        """Ends a process as a power cut would."""
        process.kill()
        process.wait()

    def start(self, *arguments: str, stdin: Stream = None, stdout: Stream = subprocess.PIPE) -> Process:
        """Starts Python with these arguments."""
        return self.start_program(sys.executable, *arguments, stdin=stdin, stdout=stdout)

    def start_program(self, *command: str, stdin: Stream = None, stdout: Stream = subprocess.PIPE) -> Process:
        process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=self._log, text=True)
        self._stack.callback(_end, process)
        return process

    def first_line(self, process: Process) -> str:
        """The first line that the process prints."""
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            said = (self.folder / "log").read_text().splitlines()[-3:]
            raise RuntimeError(f"{process.args!r} ended with status {process.wait()}: {' / '.join(said)}")
        return line


def _end(process: Process) -> None:
    """Ends a process that may have ended."""
    process.terminate()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
