"""`headway watch`: on a pipe, as JSON, on a terminal, and through restarts of the server."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.run import HEADWAY, Cli, run, spawn
from tests.support.server import ServerProcess

NewJob = Callable[..., str]


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (["finish"], 0),
        (["fail", "--message", "no"], 5),
        (["fail", "--message", "no", "--code", "CANCELLED"], 6),
    ],
)
def test_the_exit_status_tells_how_the_job_ended(cli: Cli, new_job: NewJob, ending: list[str], status: int) -> None:
    job = new_job()
    cli(ending[0], job, *ending[1:])
    assert cli("watch", job).status == status
    assert cli("watch", job, "--json").status == status


def test_on_a_pipe_each_change_is_a_line(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    job = new_job("--name", "Import", "--size", "4", "--unit", "files")
    watch = spawn("watch", job, environment=environment)
    assert watch.stdout is not None
    assert " RUNNING   Import · 0/4 files (0 %)" in watch.stdout.readline()
    cli("report", job, "--progress", "1", "--message", "a.csv")
    assert watch.stdout.readline().endswith("· 1/4 files (25 %) · a.csv\n")
    cli("finish", job)
    out, err = watch.communicate(timeout=10)
    assert " COMPLETED Import" in out
    assert (watch.returncode, err) == (0, "")


def test_json_is_one_object_a_line(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    job = new_job("--name", "Import")
    watch = spawn("watch", job, "--json", environment=environment)
    assert watch.stdout is not None
    assert json.loads(watch.stdout.readline())["status"] == "JOB_STATUS_RUNNING"
    cli("finish", job)
    out, _ = watch.communicate(timeout=10)
    assert json.loads(out.splitlines()[-1])["status"] == "JOB_STATUS_COMPLETED"


def test_a_session_is_watched_until_ctrl_c(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    first = new_job("--name", "first")
    lines = spawn("watch", environment=environment)
    objects = spawn("watch", "--json", environment=environment)
    assert lines.stdout is not None
    assert objects.stdout is not None
    assert "RUNNING   first" in lines.stdout.readline()
    assert json.loads(objects.stdout.readline())["job"]["id"] == first
    second = new_job("--name", "second")
    assert second in lines.stdout.readline()
    assert json.loads(objects.stdout.readline())["job"]["id"] == second
    cli("clear", first)
    assert lines.stdout.readline().endswith(f"{first} REMOVED\n")
    assert json.loads(objects.stdout.readline())["removed_job_id"] == first
    for process in (lines, objects):
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (130, "")


def test_a_cleared_job_is_not_found(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    job = new_job()
    watch = spawn("watch", job, environment=environment)
    assert watch.stdout is not None
    watch.stdout.readline()
    cli("clear", job)
    _, err = watch.communicate(timeout=10)
    assert (watch.returncode, err.count("\n")) == (3, 1)


@pytest.mark.parametrize("of_session", [False, True])
def test_a_watch_goes_on_after_the_server_was_killed(
    own_server: ServerProcess, environment: dict[str, str], of_session: bool
) -> None:
    environment["HEADWAY_TARGET"] = own_server.address
    job = run("create", "--name", "Import", environment=environment).out.strip()
    watch = spawn("watch", *([] if of_session else [job]), environment=environment)
    assert watch.stdout is not None
    assert watch.stderr is not None
    watch.stdout.readline()
    own_server.kill()
    assert "trying again" in watch.stderr.readline()
    own_server.start()
    assert "answers again" in watch.stderr.readline()
    assert run("report", job, "--progress", "7", environment=environment).status == 0
    assert " · 7" in watch.stdout.readline()
    run("finish", job, environment=environment)
    assert "COMPLETED" in watch.stdout.readline()
    if of_session:
        watch.send_signal(signal.SIGINT)
    watch.communicate(timeout=10)
    assert watch.returncode == (130 if of_session else 0)


def test_a_watch_goes_on_over_a_database_that_was_set_back(
    own_server: ServerProcess, environment: dict[str, str], tmp_path: Path
) -> None:
    environment["HEADWAY_TARGET"] = own_server.address
    job = run("create", environment=environment).out.strip()
    own_server.stop()
    backup = (own_server.folder / "headway.db").read_bytes()
    own_server.start()
    for progress in ("1", "2", "3"):
        run("report", job, "--progress", progress, environment=environment)
    watch = spawn("watch", job, environment=environment)
    assert watch.stdout is not None
    assert " · 3" in watch.stdout.readline()
    own_server.kill()
    for file in own_server.folder.glob("headway.db-*"):
        file.unlink()
    (own_server.folder / "headway.db").write_bytes(backup)
    own_server.start()
    assert watch.stdout.readline().endswith(" · 0\n")
    run("finish", job, environment=environment)
    watch.communicate(timeout=10)
    assert watch.returncode == 0


def test_a_watch_gives_up_after_the_timeout(own_server: ServerProcess, environment: dict[str, str]) -> None:
    environment["HEADWAY_TARGET"] = own_server.address
    job = run("create", environment=environment).out.strip()
    watch = spawn("watch", job, "--timeout", "0.1s", environment=environment)
    assert watch.stdout is not None
    watch.stdout.readline()
    own_server.kill()
    _, err = watch.communicate(timeout=30)
    assert watch.returncode == 4
    assert "no server answers" in err.splitlines()[-1]


class Terminal:
    """A `headway` on a terminal of 100 columns, and what the terminal received."""

    def __init__(self, *words: str, environment: dict[str, str]) -> None:
        master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*HEADWAY, *words],
            env={**environment, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._master = master
        self.raw = ""

    def read_until(self, wanted: str) -> str:
        """All that was shown so far, without its styles, once it holds `wanted`."""
        deadline = time.monotonic() + 15
        while wanted not in self.shown:
            assert select.select([self._master], [], [], deadline - time.monotonic())[0], self.shown
            self.raw += os.read(self._master, 65536).decode()
        return self.shown

    @property
    def shown(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw)

    def close(self) -> int:
        """Waits for the end; its exit status."""
        try:
            while data := os.read(self._master, 65536):
                self.raw += data.decode()
        except OSError:
            pass  # how Linux says that nobody writes any more
        os.close(self._master)
        return self.process.wait(timeout=10)


def test_on_a_terminal_it_is_a_live_display(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    job = new_job("--name", "Import [red]\x1b[31mred", "--size", "10", "--unit", "records")
    terminal = Terminal("watch", job, environment=environment)
    terminal.read_until("0/10 records")
    cli("report", job, "--progress", "4", "--part", "one", "--count", "added=3", "--message", "marc.dat")
    cli("report", job, "--error", "rec1:BAD_LEADER:no leader\x1b[2J")
    shown = terminal.read_until("rec1  BAD_LEADER")
    assert "Import [red]\\u001b[31mred" in shown
    assert "no leader\\u001b[2J" in shown
    for wanted in ("RUNNING", "4/10 records", "40 %", "added 3", "1 record error", "marc.dat", "━━━"):
        assert wanted in shown
    cli("finish", job)
    assert terminal.close() == 0
    assert "COMPLETED" in terminal.shown
    assert "\x1b[2J" not in terminal.raw
    assert "\x1b[31mred" not in terminal.raw
    assert terminal.raw.rstrip().endswith("\x1b[?25h"), "the cursor is back"


def test_a_terminal_shows_a_session_without_colours_where_those_are_unwanted(
    cli: Cli, new_job: NewJob, environment: dict[str, str]
) -> None:
    terminal = Terminal("watch", environment={**environment, "NO_COLOR": "1"})
    terminal.read_until("no jobs in this session yet")
    job = new_job("--name", "Export", "--heartbeat-timeout", "0.5s")
    terminal.read_until("LOST")
    cli("fail", job, "--message", "gave up")
    terminal.read_until("gave up")
    cli("clear", job)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.close() == 130
    assert not re.search(r"\x1b\[[0-9;]*(3[0-7]|38)[0-9;]*m", terminal.raw)


def test_plain_on_a_terminal(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    job = new_job()
    terminal = Terminal("watch", job, "--plain", environment=environment)
    terminal.read_until(job)
    cli("finish", job)
    assert terminal.close() == 0
    assert "\x1b" not in terminal.raw
