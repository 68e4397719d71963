"""`headway run`: tracks a program that does not use Headway."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import tempfile
import time
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

from headway.cli.escaping import warn
from headway.cli.exit_codes import COMMAND_NOT_FOUND, NOT_EXECUTABLE, USAGE
from headway.cli.run.child_process import Program
from headway.cli.run.progress_patterns import Finder
from headway.cli.run.progress_styles import Reading, in_command, own
from headway.cli.run.relay import Death
from headway.cli.run.tracker import PACE, End, Tracker, job_id

_SHORT = 100
"""Characters of a command line that are used as the name of a job."""
_LAST_LINES, _LAST_CHARACTERS = 20, 900
"""Lines and characters of standard error in the error of a job. The error has at most 1,000 characters in all."""
_FILE_AT_MOST = 4096
_IN_FILE = re.compile(r"(\d{1,18})(?:\s*/\s*(\d{1,18}))?")


def run(args: Namespace) -> int:
    """Runs the command and gives its exit status; 127 if there is no such program, 126 if it cannot be executed. If
    signal n killed it, gives 128+n, and the process will end by that signal too. Nothing that happens to the tracker
    changes that."""
    command = args.command_line[1:] if args.command_line[:1] == ["--"] else args.command_line
    if not command:
        warn("no command: write `headway run -- COMMAND…`")
        return USAGE
    try:
        styles = (own(args.pattern),) if args.pattern is not None else in_command(command)
    except ValueError as error:
        warn(f"--pattern: {error}")
        return USAGE
    death = Death()
    job = job_id()
    if args.verbose:
        warn(f"job {job}")
    with _ProgressFile() as file:
        status = _Run(args, command, job, Finder(styles), file).run()
    if status < 0:
        death.signal = -status
        return 128 - status
    return status


class _Run:
    def __init__(self, args: Namespace, command: list[str], job: str, finder: Finder, file: _ProgressFile) -> None:
        self._command = command
        self._environment = _environment(args, job, file.path)
        self._finder = finder
        self._file = file
        self._tracker = Tracker(args, job, _name(command))
        self._program = Program()
        self._asked = self._killed = False

    def run(self) -> int:
        started = time.monotonic()
        try:
            self._program.start(self._command, self._environment)
        except OSError as error:
            self._tracker.start()
            return self._not_started(error)
        # Not before, because a process with only one thread forks most safely.
        self._tracker.start()
        while (status := self._program.wait(PACE)) is None:
            self._look()
            self._obey()
        seconds = time.monotonic() - started
        self._program.finish_output()
        self._look(last=True)
        ending = self._ending(status, seconds)
        try:
            self._tracker.end(ending, self._program.interrupted)
        finally:
            self._program.close()
        return status

    def _not_started(self, error: OSError) -> int:
        status = COMMAND_NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        message = f"{self._command[0]}: {error.strerror}"
        warn(message)
        self._program.finish_output()
        self._tracker.end(End(message=message), self._program.interrupted)
        self._program.close()
        return status

    def _look(self, last: bool = False) -> None:
        for tail in self._program.outputs.look():
            if last:
                tail.end(self._finder)
            else:
                tail.look(self._finder)
        told = self._file.read()
        if told:
            self._tracker.show(*told)
        elif not self._file.used and (reading := self._finder.reading):
            self._show(reading)

    def _show(self, reading: Reading) -> None:
        size = self._tracker.size_given
        if size and reading.unit == "%":
            self._tracker.show(int(reading.done * size / 100))
        else:
            self._tracker.show(int(reading.done), int(reading.total or 0), reading.unit)

    def _obey(self) -> None:
        left = self._tracker.kill_in
        if left is None:
            return
        if not self._asked:
            self._asked = True
            self._program.send_all(signal.SIGTERM)
            # A stopped program could not end.
            self._program.send_all(signal.SIGCONT)
        elif left == 0 and not self._killed:
            self._killed = True
            self._program.send_all(signal.SIGKILL)

    def _ending(self, status: int, seconds: float) -> End:
        if self._asked:
            reason = self._tracker.reason
            return End(message=f"cancelled: {reason}" if reason else "cancelled", cancelled=True)
        if status == 0:
            return End(results={"exit_status": 0, "seconds": round(seconds, 3)})
        message = f"killed by {_name_of(-status)}" if status < 0 else f"exit status {status}"
        if status == -signal.SIGINT or self._program.interrupted_lately:
            return End(message=message if status < 0 else f"{message} after Ctrl-C", cancelled=True)
        words = self._program.outputs.last_lines(_LAST_LINES, _LAST_CHARACTERS)
        return End(message=f"{message}\n{words}" if words else message)


class _ProgressFile:
    """The file in which a program may write its progress: `N/M` or `N`, in the last line."""

    def __init__(self) -> None:
        self._folder = ""
        self._size = 0
        self.used = False
        """Whether the program has ever used the file. Then its output is not searched for progress any more."""

    def __enter__(self) -> _ProgressFile:
        with suppress(OSError):
            self._folder = tempfile.mkdtemp(prefix="headway-")
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def path(self) -> str:
        """The path of the file, or "" if it cannot be created."""
        return os.path.join(self._folder, "progress") if self._folder else ""  # noqa: PTH118

    def read(self) -> tuple[int, int] | None:
        """The last progress and size (0 = not known). None without a number to read."""
        if not self._folder:
            return None
        try:
            # Do not wait if the program has put something else there, such as a named pipe.
            file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            os.lseek(file, max(os.fstat(file).st_size - _FILE_AT_MOST, 0), os.SEEK_SET)
            lines = os.read(file, _FILE_AT_MOST).decode(errors="replace").split("\n")
        except OSError:
            return None
        finally:
            os.close(file)
        last = next((line for line in reversed(lines) if line.strip()), "")
        match = _IN_FILE.fullmatch(last.strip())
        if not match:
            return None
        self.used = True
        self._size = int(match[2] or self._size)
        return int(match[1]), self._size


def _environment(args: Namespace, job: str, file: str) -> dict[str, str]:
    """The environment of the program: its own, plus the variables for further reports."""
    given = {name: getattr(args, name, None) for name in ("session", "target", "token", "ca")}
    told = {f"HEADWAY_{name.upper()}": value for name, value in given.items() if value}
    environment = {**os.environ, **told, "HEADWAY_JOB": job, "HEADWAY_PROGRESS_FILE": file}
    environment.setdefault("HEADWAY_TARGET", "127.0.0.1:50051")
    if not _was_given("LC_CTYPE"):
        # Python sets this for itself in the locale C, as in a cron job.
        environment.pop("LC_CTYPE", None)
    return environment


def _was_given(name: str) -> bool:
    """Whether this process was started with that variable."""
    try:
        return f"\0{name}=".encode() in b"\0" + Path("/proc/self/environ").read_bytes()
    except OSError:
        return True


def _name(command: list[str]) -> str:
    line = shlex.join(command)
    return line if len(line) <= _SHORT else line[: _SHORT - 1] + "…"


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
