"""A driver: the process that carries out a case's operations in its language."""

import contextlib
import json
import queue
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from clients.conformance.languages import ROOT

ENDS_WITHIN = 20.0
"""Seconds that a driver has to end after its input."""

_CRASHES = re.compile(
    r"Traceback \(most recent|^panic: |panicked at|goroutine \d+ \[|^Exception in thread|^\s+at [\w.$]+\(.*\)$"
    r"|UnhandledPromiseRejection|Uncaught|DATA RACE|uninitialized value| at \S+\.pm line \d+\.$",
    re.MULTILINE,
)
"""How each language reports a crash on standard error. No client may write this."""


class DriverError(Exception):
    """The driver did not do what README.md requires."""


class Driver:
    """A running driver."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], notes: Path) -> None:
        self._notes = notes
        self._ids = 0
        self._answers: dict[int, tuple[Mapping[str, object], float]] = {}
        self._arrived: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()
        with notes.open("w") as stderr:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                encoding="utf-8",
            )
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, op: str, arguments: Mapping[str, object]) -> int:
        """Sends an operation. Returns the number of its answer."""
        self._ids += 1
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"id": self._ids, "op": op, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise DriverError(f"the driver ended: {self.notes[-2000:]}") from None
        return self._ids

    def answer(self, number: int, timeout: float) -> tuple[Mapping[str, object], float]:
        """The answer with that number, and when it came (monotonic seconds). DriverError."""
        end = time.monotonic() + timeout
        while number not in self._answers:
            try:
                line, came = self._arrived.get(timeout=max(end - time.monotonic(), 0.0))
            except queue.Empty:
                raise DriverError(f"the driver did not answer within {timeout:g} s: {self.notes[-2000:]}") from None
            if not line:
                raise DriverError(f"the driver ended: {self.notes[-2000:]}")
            try:
                answer = json.loads(line)
                self._answers[answer["id"]] = (answer, came)
            except (ValueError, KeyError, TypeError):
                raise DriverError(f"that is no answer: {line[:300]!r}") from None
        return self._answers.pop(number)

    @property
    def notes(self) -> str:
        """Its output on standard error."""
        return self._notes.read_text(errors="replace")

    def kill(self) -> None:
        self._process.kill()
        self._close()

    def end(self) -> str:
        """Ends its input. Returns what is wrong with how it then ends, or an empty text."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            status = self._process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
            return f"the driver did not end within {ENDS_WITHIN:g} s"
        self._close()
        if status:
            return f"the driver ended with status {status}: {self.notes[-2000:]}"
        crash = _CRASHES.search(self.notes)
        return f"a fault of the client's own: {self.notes[max(crash.start() - 500, 0) :][:2000]}" if crash else ""

    def _close(self) -> None:
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:
                pass

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._arrived.put((line, time.monotonic()))
        except ValueError:
            # Another thread has closed it.
            pass
        self._arrived.put(("", time.monotonic()))
