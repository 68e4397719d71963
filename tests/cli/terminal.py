"""A terminal for tests, and what runs on it as a person sees it."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence

OUTPUT_TIMEOUT = 20.0


class Terminal:
    """A command with a terminal of its own, or with `stdin` from elsewhere one to write to."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], stdin: int | None = None) -> None:
        self._master, self._slave = pty.openpty()
        self.resize(30, 90)
        self._before = termios.tcgetattr(self._slave)
        # The program setsid gives it the terminal as its own, as a shell has it.
        on_its_own = ["setsid"] if stdin is not None else ["setsid", "--ctty"]
        self.process = subprocess.Popen(
            [*on_its_own, *command],
            env={**environment, "TERM": "xterm"},
            stdin=self._slave if stdin is None else stdin,
            stdout=self._slave,
            stderr=self._slave,
        )
        self.seen = b""
        """What it wrote since `read_until` was last content."""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    @property
    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self._slave)[3] & termios.ECHO)

    @property
    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._slave) == self._before

    def read_until(self, text: bytes) -> bytes:
        """What comes before that text."""
        deadline = time.monotonic() + OUTPUT_TIMEOUT
        while text not in self.seen:
            assert select.select([self._master], [], [], max(deadline - time.monotonic(), 0))[0], self.seen
            self.seen += os.read(self._master, 65536)
        before, _, self.seen = self.seen.partition(text)
        return before

    def end(self) -> tuple[int, bytes]:
        """Its exit status and the rest of what it wrote."""
        deadline = time.monotonic() + OUTPUT_TIMEOUT
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.seen
            if select.select([self._master], [], [], 0.05)[0]:
                self.seen += os.read(self._master, 65536)
        while select.select([self._master], [], [], 0)[0]:
            self.seen += os.read(self._master, 65536)
        return self.process.returncode, self.seen

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._slave)
        os.close(self._master)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
