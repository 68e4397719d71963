"""`--offline`: a script continues while its server does not answer. Its calls arrive later, in order, once."""

import json
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from headway._spool import spool
from headway.target import Target
from headway.v1 import job_service_pb2 as rpc
from tests.cli.run import HEADWAY, Cli, Result, run, spawn
from tests.support.server import ServerProcess

AT_ONCE = 3.0
"""Seconds: a command, and the second that it waits for a server, on a busy machine."""


class Script:
    """A script that sets HEADWAY_OFFLINE=1 first: its commands, and its server."""

    def __init__(self, cli: Cli, server: ServerProcess) -> None:
        self.cli = cli
        self.server = server

    def says(self, *arguments: str) -> str:
        """Runs a command that must end well; what it prints."""
        result = self.cli(*arguments)
        assert result.status == 0, result.err
        return result.out.strip()

    def seen(self, job: str) -> dict[str, Any]:
        """The job as the server has it."""
        found: dict[str, Any] = json.loads(self.says("get", job, "--json"))
        return found

    @property
    def kept(self) -> list[Path]:
        return list(spool.spool_files())

    def wait_for_retry_pause(self) -> None:
        """As if the server had been asked some time ago."""
        for spool_file in self.kept:
            os.utime(spool_file, (0, 0))

    def away(self, seconds: float, *arguments: str) -> Result:
        """Runs a command that must end well within so many seconds, though there is no server."""
        began = time.monotonic()
        result = self.cli(*arguments)
        assert time.monotonic() - began < seconds
        assert result.status == 0, result.err
        return result


@pytest.fixture
def script(cli: Cli, own_server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.setenv("HEADWAY_TARGET", own_server.address)
    monkeypatch.setenv("HEADWAY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("HEADWAY_OFFLINE", "1")
    return Script(cli, own_server)


def test_a_whole_script_without_a_server(script: Script) -> None:
    script.server.stop()
    created = script.away(AT_ONCE, "create", "--name", "Export", "--size", "3")
    job = created.out.strip()
    assert len(job) == 32
    assert "does not answer" in created.err
    assert created.err.count("\n") == 1
    for _ in range(3):
        said = script.away(AT_ONCE, "report", job, "--advance", "1", "--count", "files=1", "--error", "r1")
        assert (said.out, said.err) == ("", "")
    script.away(AT_ONCE, "set", job, "place=7")
    script.away(AT_ONCE, "update", job, "--name", "Export of patrons", "--unit", "files")
    assert "saved" in script.away(AT_ONCE, "finish", job, "--results", '{"files": 3}').err
    assert len(script.kept) == 1
    script.server.start()
    assert script.says("flush").startswith("sent")
    seen = script.seen(job)
    assert (seen["name"], seen["size"], seen["unit"]) == ("Export of patrons", "3", "files")
    assert (seen["status"], seen["progress"], seen["counters"]) == ("JOB_STATUS_COMPLETED", "3", {"files": "3"})
    assert seen["errorCount"] == "3"
    assert script.says("vars", job) == "place=7"
    assert json.loads(script.says("results", job)) == {"files": 3}


def test_the_next_command_about_the_job_delivers_what_is_kept(script: Script) -> None:
    script.server.stop()
    job = script.says("create")
    script.says("report", job, "--progress", "4", "--set", "place=4")
    script.server.start()
    script.wait_for_retry_pause()
    script.says("report", job, "--progress", "3")
    assert script.kept == []
    seen = script.seen(job)
    assert (seen["progress"], seen["revision"]) == ("3", "3")


@pytest.mark.parametrize("command", [["get"], ["vars"], ["start", "--take-over"], ["wait"]])
def test_so_do_commands_that_keep_nothing(script: Script, command: Sequence[str]) -> None:
    job = script.says("create")
    script.server.stop()
    script.says("report", job, "--advance", "5", "--attempt", "1")
    script.says("fail", job, "--message", "no more") if command == ["wait"] else None
    script.server.start()
    assert script.cli(command[0], job, *command[1:]).status == (5 if command == ["wait"] else 0)
    assert script.kept == []
    assert script.seen(job)["progress"] == "5"


def test_without_it_an_unreachable_server_is_an_error(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script.server.stop()
    for option in ("--no-offline", "--no-keep"):
        assert script.cli("create", option).status == 4
    for value in ("", "0"):
        monkeypatch.setenv("HEADWAY_OFFLINE", value)
        assert script.cli("report", "0" * 32).status == 4
    monkeypatch.delenv("HEADWAY_OFFLINE")
    assert script.cli("set", "0" * 32, "a=1").status == 4
    assert script.kept == []
    assert script.cli("create", "--offline").status == 0
    assert len(script.kept) == 1


def test_the_former_names_mean_the_same(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script.server.stop()
    monkeypatch.delenv("HEADWAY_OFFLINE")
    assert script.cli("create", "--keep").status == 0
    monkeypatch.setenv("HEADWAY_KEEP", "1")
    assert script.cli("create").status == 0
    assert len(script.kept) == 2
    monkeypatch.setenv("HEADWAY_OFFLINE", "0")
    assert script.cli("create").status == 4


def test_a_server_that_says_nothing_holds_nobody_up(script: Script) -> None:
    job = script.says("create")
    script.server.signal(signal.SIGSTOP)
    script.away(AT_ONCE, "report", job, "--advance", "1")
    # It was asked just now.
    began = time.monotonic()
    for _ in range(20):
        script.says("report", job, "--advance", "1")
    assert time.monotonic() - began < AT_ONCE
    script.away(AT_ONCE, "finish", job)
    script.server.signal(signal.SIGCONT)
    script.says("flush")
    seen = script.seen(job)
    assert (seen["status"], seen["progress"]) == ("JOB_STATUS_COMPLETED", "21")


def test_a_server_that_has_no_room_is_asked_again(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    with ServerProcess(folder, "--max-session-jobs", "1") as small:
        monkeypatch.setenv("HEADWAY_TARGET", small.address)
        first = script.says("create")
        full = script.cli("create", "--name", "second")
        assert full.status == 0
        assert "does not answer (" in full.err
        assert script.cli("flush").status == 4
        script.says("clear", first)
        script.says("flush")
        assert script.seen(full.out.strip())["name"] == "second"


def test_what_is_said_twice_counts_once(script: Script, tmp_path: Path) -> None:
    job = script.says("create")
    script.server.stop()
    for _ in range(3):
        script.says("report", job, "--advance", "2", "--count", "files=1")
    (spool_file,) = script.kept
    copy = shutil.copy(spool_file, tmp_path)
    script.server.start()
    script.says("flush")
    shutil.copy(copy, spool_file)
    script.says("flush")
    seen = script.seen(job)
    assert (seen["progress"], seen["counters"]) == ("6", {"files": "3"})


def test_what_the_server_refuses_stays_an_error(script: Script) -> None:
    assert script.cli("report", "0" * 32).status == 3
    assert script.cli("create", "--name", "n" * 300).status == 1
    job = script.says("create")
    assert script.cli("report", job, "--advance", "-1").status == 1
    script.says("finish", job)
    assert script.cli("report", job).status == 1
    assert script.cli("fail", job, "--message", "m").status == 1
    assert script.cli("report", job, "--progress", "1", "--advance", "1").status == 2
    assert script.kept == []


def test_results_that_no_server_takes_are_not_kept(script: Script, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps("x" * 5_000_000))
    result = script.cli("finish", script.says("create"), "--results-file", str(file))
    assert result.status == 1
    assert script.kept == []


@pytest.mark.parametrize("place", ["", "/dev/null/spool"])
def test_where_nothing_can_be_kept_it_is_lost_and_no_error(
    script: Script, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_SPOOL", place)
    job = script.says("create")
    script.says("report", job, "--advance", "1")
    script.server.stop()
    result = script.away(AT_ONCE, "report", job, "--advance", "1")
    assert "lost" in result.err
    assert result.err.count("\n") == 1
    assert "lost" in script.away(AT_ONCE, "finish", job).err
    script.server.start()
    assert script.seen(job)["progress"] == "1"


def test_json_says_that_it_is_kept(script: Script) -> None:
    script.server.stop()
    created = json.loads(script.says("create", "--name", "Export", "--json"))
    assert (created["name"], created["status"]) == ("Export", "JOB_STATUS_RUNNING")
    for arguments in (["report", "--advance", "1"], ["set", "a=1"], ["finish"]):
        assert json.loads(script.says(arguments[0], created["id"], *arguments[1:], "--json")) == {"kept": True}
    script.server.start()
    assert script.seen(created["id"])["status"] == "JOB_STATUS_COMPLETED"


@pytest.mark.parametrize("there", [True, False])
def test_commands_of_one_job_at_the_same_time(script: Script, there: bool) -> None:
    job = script.says("create")
    if not there:
        script.server.stop()
    commands = [spawn("report", job, "--advance", "1", environment=dict(os.environ)) for _ in range(8)]
    for command in commands:
        _, err = command.communicate(timeout=60)
        assert command.returncode == 0, err
    if not there:
        script.server.start()
    assert script.seen(job)["progress"] == "8"
    assert script.kept == []


def test_a_program_under_run_does_not_hide_its_progress(script: Script) -> None:
    says = (
        f'echo 1/3; {shlex.join(HEADWAY)} report "$HEADWAY_JOB" --timeout 30s --count files=1 --message closing;'
        " echo 2/3; echo 3/3"
    )
    result = run("run", "--", "sh", "-c", says, environment=dict(os.environ))
    assert (result.status, result.err) == (0, "")
    (job,) = json.loads(script.says("list", "--json"))["jobs"]
    assert (job["progress"], job["counters"], job["message"]) == ("3", {"files": "1"}, "closing")


def test_a_locked_spool_file_is_followed_by_a_second(script: Script) -> None:
    script.server.stop()
    job = script.says("create", "--name", "Export")
    spool_file = spool.SpoolFile.claim(script.kept[0])
    assert spool_file is not None
    script.server.start()
    result = run("report", job, "--advance", "1", environment=dict(os.environ))
    assert result.status == 0
    assert "another process" in result.err
    assert len(script.kept) == 2
    waiting = run("flush", environment=dict(os.environ))
    assert (waiting.status, waiting.out.count("waiting")) == (4, 2)
    spool_file.release()
    script.says("finish", job)
    assert script.kept == []
    seen = script.seen(job)
    assert (seen["name"], seen["progress"], seen["status"]) == ("Export", "1", "JOB_STATUS_COMPLETED")


@pytest.mark.parametrize("there", [True, False])
def test_a_clock_that_is_set_back_loses_nothing(script: Script, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    job = script.says("create")
    if not there:
        script.server.stop()
    script.says("report", job, "--advance", "1", "--count", "files=1")
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() - 3_600_000_000_000)
    script.says("report", job, "--advance", "1", "--count", "files=1")
    script.says("report", job, "--advance", "1", "--count", "files=1")
    if not there:
        script.server.start()
        script.wait_for_retry_pause()
        script.says("report", job)
    seen = script.seen(job)
    assert (seen["progress"], seen["counters"]) == ("3", {"files": "3"})


def test_a_damaged_note_of_the_last_sequence_is_made_anew(script: Script) -> None:
    job = script.says("create")
    script.says("report", job, "--advance", "1")
    note = Path(os.environ["HEADWAY_SPOOL"], "sequence")
    note.write_bytes(b"\0" * 40)
    script.says("report", job, "--advance", "1")
    assert script.seen(job)["progress"] == "2"


def test_thousands_of_reports_take_a_moment(script: Script, session: str) -> None:
    job = script.says("create")
    reports = [
        rpc.ReportProgressRequest(session_id=session, job_id=job, advance=1, counters={"files": 1}, sequence=number)
        for number in range(1, 2501)
    ]
    # One in between that is refused, and spoils none of the others.
    reports.insert(1200, rpc.ReportProgressRequest(session_id=session, job_id=job, part="other", advance=-1))
    target = Target.from_environment()
    spool.write(spool.SpoolRecord(target.address, target.tls, job, "", reports)).release()
    script.wait_for_retry_pause()
    began = time.monotonic()
    script.says("finish", job)
    assert time.monotonic() - began < 5
    seen = script.seen(job)
    assert (seen["progress"], seen["counters"]) == ("2500", {"files": "2500"})


def test_a_full_spool_file_is_followed_by_another(script: Script) -> None:
    script.server.stop()
    job = script.says("create")
    for number in range(12):
        script.says("report", job, "--set", f"part{number}={'x' * 110_000}", "--advance", "1")
    first, second = script.kept
    size = first.stat().st_size
    script.wait_for_retry_pause()
    script.says("report", job, "--progress", "20")
    assert script.kept == [first, second]
    assert first.stat().st_size == size
    script.server.start()
    script.says("finish", job)
    assert script.kept == []
    assert script.seen(job)["progress"] == "20"


def test_what_was_kept_of_a_job_that_is_gone_is_put_aside(script: Script) -> None:
    job = script.says("create")
    script.server.stop()
    script.says("report", job, "--advance", "1")
    (spool_file,) = script.kept
    script.server.start()
    held = spool.SpoolFile.claim(spool_file)
    assert held is not None
    script.says("clear", job)
    held.release()
    assert script.cli("finish", job).status == 3
    assert script.kept == []
    assert spool_file.with_suffix(".refused").exists()


def test_texts_are_cut_where_nobody_would_see_them_refused(script: Script) -> None:
    script.server.stop()
    job = script.says("create")
    script.says("report", job, "--advance", "1", "--message", "m" * 5000, "--error", f"{'r' * 500}:{'C' * 500}:x")
    script.says("fail", job, "--message", "f" * 5000)
    script.server.start()
    seen = script.seen(job)
    assert (seen["progress"], len(seen["message"]), seen["errorCount"]) == ("1", 1024, "1")
    assert len(seen["error"]["message"]) == 1024


def test_what_is_to_be_removed_cannot_be_kept(script: Script) -> None:
    job = script.says("create")
    script.says("set", job, "a=1", "b=2")
    script.says("set", job, "--remove", "a")
    assert script.says("vars", job) == "b=2"
    script.server.stop()
    result = script.away(AT_ONCE, "set", job, "c=3", "--remove", "b")
    assert "the removal is lost" in result.err
    script.server.start()
    assert script.says("vars", job) == "b=2\nc=3"


def test_variables_of_a_job_that_has_ended_can_be_set(script: Script) -> None:
    job = script.says("create")
    script.says("finish", job)
    script.says("set", job, "seen=true")
    assert script.says("vars", job) == "seen=true"


def test_what_waits_for_a_server_that_never_returns_can_be_given_up(script: Script) -> None:
    first = script.says("create", "--name", "First", "--target", "127.0.0.1:1")
    second = script.says("create", "--name", "Second", "--target", "127.0.0.1:1")
    third = script.says("create", "--name", "Third", "--target", "127.0.0.1:2")
    waiting = script.cli("flush")
    assert waiting.status == 4
    assert "--discard" in waiting.err
    head, *rows = script.says("flush", "--list").splitlines()
    assert head.split() == ["OUTCOME", "TARGET", "JOB", "NAME", "WRITTEN", "CALLS", "FILE"]
    shown = {tuple(row.split()[2:4]) for row in rows}
    assert shown == {(first, "First"), (second, "Second"), (third, "Third")}
    assert len({row.index("127.") for row in rows}) == 1
    several = script.cli("flush", "--discard", first[:2])
    assert (several.status, len(script.kept)) == (2, 3)
    assert script.cli("flush", "--discard", "0" * 32).status == 3
    gone = script.cli("flush", "--discard", first.upper())
    assert (gone.status, gone.out.split()[0], len(script.kept)) == (0, "discarded", 2)
    assert script.cli("flush", "--discard", "127.0.0.1:1").out.split()[:3] == ["discarded", "127.0.0.1:1", second]
    assert script.cli("flush", "--discard", "all").status == 0
    assert script.kept == []
    assert script.cli("flush").status == 0


def test_one_session_does_not_send_the_files_of_another(script: Script) -> None:
    job = "0190b5a1c8d07b2a9c3e5f60718293a4"
    script.server.stop()
    script.says("create", "--id", job, "--name", "mine")
    script.says("create", "--id", job, "--name", "theirs", "--session", "another")
    script.says("report", job, "--advance", "1")
    script.says("report", job, "--advance", "2", "--session", "another")
    script.server.start()
    script.says("finish", job)
    script.says("finish", job, "--session", "another")
    assert (script.seen(job)["name"], script.seen(job)["progress"]) == ("mine", "1")
    theirs = json.loads(script.says("get", job, "--json", "--session", "another"))
    assert (theirs["name"], theirs["progress"]) == ("theirs", "2")


def test_update(cli: Cli, new_job: Callable[..., str]) -> None:
    job = new_job("--name", "Before", "--invoker", "alice", "--size", "5", "--unit", "files")
    assert cli("update", job, "--name", "After", "--invoker", "", "--size", "7").status == 0
    seen = json.loads(cli("get", job, "--json").out)
    assert (seen["name"], seen["invoker"], seen["size"], seen["unit"]) == ("After", "", "7", "files")
    assert cli("update", job).status == 2
    assert cli("update", "0" * 32, "--name", "x").status == 3


def test_with_json_an_error_is_json_too(cli: Cli) -> None:
    missing = cli("get", "0" * 32, "--json")
    assert (missing.status, missing.out) == (3, "")
    assert json.loads(missing.err)["reason"] == "JOB_NOT_FOUND"
    refused = json.loads(cli("create", "--name", "n" * 300, "--unit", "u" * 40, "--json").err)
    assert (refused["code"], refused["reason"]) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert set(refused["fields"]) == {"name", "unit"}
    away = cli("list", "--json", "--target", "127.0.0.1:1")
    assert (away.status, json.loads(away.err)["code"]) == (4, "UNAVAILABLE")
