"""`headway run`: the program's work is its own, and the job tells how it went."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.run import HEADWAY, Cli, run, spawn
from tests.support.server import ServerProcess
from tests.support.waiting import until

Job = dict[str, Any]


def sh(script: str) -> tuple[str, ...]:
    return ("run", "--", "sh", "-c", script)


# How it ends.


def test_success_is_completed(cli: Cli, environment: dict[str, str], job: Callable[[], Job]) -> None:
    result = run(*sh("echo out; echo err >&2"), environment=environment)
    assert (result.status, result.out, result.err) == (0, "out\n", "err\n")
    ended = job()
    assert (ended["status"], ended["name"]) == ("JOB_STATUS_COMPLETED", "sh -c 'echo out; echo err >&2'")
    results = json.loads(cli("results", ended["id"]).out)
    assert results["exit_status"] == 0
    assert 0 < results["seconds"] < 30


def test_failure_tells_the_last_lines(environment: dict[str, str], job: Callable[[], Job]) -> None:
    result = run(*sh("echo out; seq 100 >&2; echo last line >&2; exit 3"), environment=environment)
    assert (result.status, result.out) == (3, "out\n")
    ended = job()
    assert ended["status"] == "JOB_STATUS_FAILED"
    lines = ended["error"]["message"].splitlines()
    assert (lines[0], lines[1], lines[-1], len(lines)) == ("exit status 3", "82", "last line", 21)


def test_a_long_error_is_cut(environment: dict[str, str], job: Callable[[], Job]) -> None:
    assert run(*sh("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1"), environment=environment).status == 1
    assert len(job()["error"]["message"]) <= 1000


def test_killed_by_a_signal(environment: dict[str, str], job: Callable[[], Job]) -> None:
    assert run(*sh("kill -9 $$"), environment=environment).status == -signal.SIGKILL
    assert job()["error"]["message"] == "killed by SIGKILL"


def test_not_found(environment: dict[str, str], job: Callable[[], Job]) -> None:
    result = run("run", "--", "no-such-program", environment=environment)
    assert (result.status, result.out) == (127, "")
    assert "no-such-program" in result.err
    assert (job()["status"], job()["error"]["message"]) == (
        "JOB_STATUS_FAILED",
        "no-such-program: No such file or directory",
    )


def test_not_executable(environment: dict[str, str], job: Callable[[], Job], tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("")
    assert run("run", "--", str(file), environment=environment).status == 126
    assert job()["status"] == "JOB_STATUS_FAILED"


def test_wrong_usage_runs_nothing(cli: Cli) -> None:
    assert cli("run").status == 2
    assert cli("run", "--").status == 2
    assert cli("run", "--pattern", "(", "--", "true").status == 2
    assert cli("run", "--pattern", "x", "--", "true").status == 2


def test_what_the_person_says_of_the_job(environment: dict[str, str], job: Callable[[], Job]) -> None:
    options = ["--name", "Näme", "--invoker", "me", "--label", "a=1", "--size", "50", "--unit", "rows", "--verbose"]
    script = "for n in 10 20 30 40; do echo $n%; done"
    result = run("run", *options, "--", "sh", "-c", script, environment=environment)
    done = job()
    assert (done["name"], done["invoker"], done["labels"]) == ("Näme", "me", {"a": "1"})
    assert (done["progress"], done["size"], done["unit"]) == ("20", "50", "rows")
    assert result.err == f"headway: job {done['id']}\n"


def test_arguments_reach_the_program_as_they_are(environment: dict[str, str]) -> None:
    words = ["-x", "--name", "--", "a b", "", "*"]
    assert run("run", "--", "printf", "<%s>", *words, environment=environment).out == "<-x><--name><--><a b><><*>"
    assert run("run", "printf", "<%s>", "--json", environment=environment).out == "<--json>"
    assert run("run", "printf", "<%s>", b"\xff", environment=environment).out == "<\udcff>"


# What passes through.


def test_binary_output_and_input_are_unharmed(environment: dict[str, str]) -> None:
    data = os.urandom(3_000_000)
    command = [*HEADWAY, *sh("tee /dev/stderr")]
    done = subprocess.run(command, env=environment, input=data, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0
    assert done.stdout == data
    assert done.stderr == data


def test_output_comes_at_once(environment: dict[str, str]) -> None:
    process = subprocess.Popen([*HEADWAY, *sh("printf ab; read x")], env=environment, stdin=-1, stdout=-1)
    assert process.stdout is not None
    assert process.stdout.read(2) == b"ab"
    process.communicate(b"\n", timeout=10)
    assert process.returncode == 0


def test_all_output_arrives_at_a_slow_reader(environment: dict[str, str]) -> None:
    process = subprocess.Popen([*HEADWAY, *sh("head -c 200000 /dev/zero")], env=environment, stdout=-1)
    assert process.stdout is not None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    out, _ = process.communicate(timeout=10)
    assert (len(out), process.returncode) == (200000, 0)


def test_only_who_asks_it_to_end_cuts_output_short(environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [*HEADWAY, *sh("head -c 200000 /dev/zero; echo done >&2")], env=environment, stdout=-1, stderr=-1
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"done\n"
    for number in (signal.SIGUSR1, signal.SIGCONT, signal.SIGTSTP):
        process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert (len(out), process.returncode) == (200000, 0)


def test_the_program_sees_that_its_reader_has_gone(environment: dict[str, str], job: Callable[[], Job]) -> None:
    process = subprocess.Popen([*HEADWAY, "run", "--", "yes"], env=environment, stdout=-1, stderr=-1)
    assert process.stdout is not None
    process.stdout.read(2)
    process.stdout.close()
    process.stdout = None
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGPIPE
    assert job()["error"]["message"] == "killed by SIGPIPE"


def test_the_program_can_report_more(environment: dict[str, str], job: Callable[[], Job]) -> None:
    result = run("run", "--target", environment["HEADWAY_TARGET"], "--", "env", environment=environment)
    told = dict(line.split("=", 1) for line in result.out.splitlines() if line.startswith("HEADWAY_"))
    assert told["HEADWAY_JOB"] == job()["id"]
    assert told["HEADWAY_TARGET"] == environment["HEADWAY_TARGET"]
    assert told["HEADWAY_SESSION"] == environment["HEADWAY_SESSION"]
    assert "HEADWAY_PROGRESS_FILE" in told
    assert "GRPC_VERBOSITY=NONE" not in result.out or "GRPC_VERBOSITY" in environment
    assert not Path(told["HEADWAY_PROGRESS_FILE"]).parent.exists()


# Signals and cancellation.


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1", "ALRM", "RTMIN"])
def test_signals_are_passed_on(environment: dict[str, str], name: str) -> None:
    script = f"trap 'echo caught; exit 7' {name}; echo ready; while :; do sleep 0.02; done"
    process = spawn(*sh(script), environment=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, f"SIG{name}"))
    out, _ = process.communicate(timeout=10)
    assert (out, process.returncode) == ("caught\n", 7)


def test_a_signal_kills_what_does_not_catch_it(environment: dict[str, str], job: Callable[[], Job]) -> None:
    process = spawn(*sh("echo ready; exec sleep 60"), environment=environment)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == -signal.SIGTERM
    assert (job()["status"], job()["error"]["message"]) == ("JOB_STATUS_FAILED", "killed by SIGTERM")
    process.communicate()


def test_a_signal_that_is_sent_twice_hurries_nobody(environment: dict[str, str], job: Callable[[], Job]) -> None:
    process = spawn(
        *sh("trap 'sleep 0.1; exit 3' TERM; echo ready; while :; do sleep 0.02; done"), environment=environment
    )
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (3, "")
    assert job()["status"] == "JOB_STATUS_FAILED"


def test_cancellation_ends_the_program(cli: Cli, environment: dict[str, str], job: Callable[[], Job]) -> None:
    script = "trap 'echo bye; exit 4' TERM; while :; do sleep 0.02; done"
    process = spawn(*sh(script), environment=environment)
    until(lambda: bool(job()))
    assert cli("cancel", job()["id"], "--reason", "wrong file").status == 0
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("bye\n", 4)
    assert job()["status"] == "JOB_STATUS_CANCELLED"


def test_cancellation_ends_all_that_the_program_has_started(
    cli: Cli, environment: dict[str, str], job: Callable[[], Job]
) -> None:
    wait = "while :; do sleep 0.02; done"
    process = spawn(*sh(f"(trap 'echo bye; exit' TERM; echo ready; {wait}); echo on"), environment=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    until(lambda: bool(job()))
    assert cli("cancel", job()["id"]).status == 0
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("bye\n", -signal.SIGTERM)
    assert job()["status"] == "JOB_STATUS_CANCELLED"


@pytest.mark.parametrize("grace", ["1s", "0"])
def test_at_the_deadline_the_program_is_killed(
    cli: Cli, environment: dict[str, str], job: Callable[[], Job], grace: str
) -> None:
    process = spawn(*sh("trap '' TERM; while :; do sleep 0.02; done"), environment=environment)
    until(lambda: bool(job()))
    assert cli("cancel", job()["id"], "--grace", grace).status == 0
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert job()["status"] == "JOB_STATUS_CANCELLED"


@pytest.mark.parametrize(
    ("script", "status", "ended"),
    [
        ("echo ready; read x", -signal.SIGINT, "CANCELLED"),
        ("trap 'exit 7' INT; echo ready; read x", 7, "CANCELLED"),
        ("trap : INT; echo ready; read x; read x; exit 0", 0, "COMPLETED"),
    ],
)
def test_ctrl_c_cancels(
    environment: dict[str, str], job: Callable[[], Job], script: str, status: int, ended: str
) -> None:
    process = subprocess.Popen([*HEADWAY, *sh(script)], env=environment, stdin=-1, stdout=-1)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    if ended == "COMPLETED":
        process.communicate(b"\n\n", timeout=30)
    assert process.wait(timeout=30) == status
    process.communicate()
    assert job()["status"] == f"JOB_STATUS_{ended}"


# The server does not answer the tracker.


@pytest.mark.parametrize("target", ["127.0.0.1:1", "not an address", "127.0.0.1:9"])
def test_without_a_server_the_program_runs(environment: dict[str, str], tmp_path: Path, target: str) -> None:
    environment |= {"HEADWAY_TARGET": target, "HEADWAY_SPOOL": str(tmp_path)}
    result = run(*sh("cat; echo err >&2; exit 5"), environment=environment, stdin="in\n")
    assert (result.status, result.out) == (5, "in\n")
    lines = result.err.splitlines()
    assert lines[0] == "err"
    assert len(lines) <= 2
    quiet = run("run", "--quiet", "--", "echo", "x", environment=environment)
    assert (quiet.status, quiet.out, quiet.err) == (0, "x\n", "")


def test_without_a_session_the_program_runs(environment: dict[str, str]) -> None:
    del environment["HEADWAY_SESSION"]
    result = run("run", "--", "echo", "x", environment=environment)
    assert (result.status, result.out) == (0, "x\n")
    assert "session" in result.err


def test_a_refusal_changes_nothing(environment: dict[str, str]) -> None:
    result = run("run", "--label", f"{'k' * 300}=v", "--", "sh", "-c", "echo x; exit 9", environment=environment)
    assert (result.status, result.out, result.err.count("\n")) == (9, "x\n", 1)


def test_a_server_that_hangs_holds_nobody_up(
    own_server: ServerProcess, environment: dict[str, str], tmp_path: Path
) -> None:
    environment |= {"HEADWAY_TARGET": own_server.address, "HEADWAY_SPOOL": str(tmp_path)}
    own_server.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        result = run("run", "--", "echo", "x", environment=environment)
        assert (result.status, result.out) == (0, "x\n")
        assert time.monotonic() - begun < 8
    finally:
        own_server.signal(signal.SIGCONT)


# The file.


def test_the_file_tells_the_progress(environment: dict[str, str], job: Callable[[], Job]) -> None:
    script = 'for n in 1 2 3 4; do echo "$n/9"; done; echo 3/7 > $HEADWAY_PROGRESS_FILE'
    assert run(*sh(script), environment=environment).out == "1/9\n2/9\n3/9\n4/9\n"
    assert (job()["progress"], job()["size"]) == ("3", "7")


@pytest.mark.parametrize(
    ("script", "progress", "size"),
    [
        ('for n in 1 2 3; do echo "$n/9" >> $HEADWAY_PROGRESS_FILE; done', "3", "9"),
        ("printf 12 > $HEADWAY_PROGRESS_FILE", "12", "0"),
        ("echo 1/2 > $HEADWAY_PROGRESS_FILE; echo rubbish > $HEADWAY_PROGRESS_FILE", "0", "0"),
        ("mkfifo $HEADWAY_PROGRESS_FILE", "0", "0"),
        ("mkdir $HEADWAY_PROGRESS_FILE", "0", "0"),
    ],
)
def test_what_may_be_in_the_file(
    environment: dict[str, str], job: Callable[[], Job], script: str, progress: str, size: str
) -> None:
    assert run(*sh(script), environment=environment).status == 0
    assert (job()["progress"], job()["size"]) == (progress, size)


def test_progress_is_seen_while_the_program_runs(environment: dict[str, str], job: Callable[[], Job]) -> None:
    script = "echo 3/7 > $HEADWAY_PROGRESS_FILE; read x"
    process = subprocess.Popen([*HEADWAY, *sh(script)], env=environment, stdin=-1)
    until(lambda: bool(job()))
    until(lambda: job()["progress"] == "3" and job()["size"] == "7")
    process.communicate(b"\n", timeout=10)


# What it prints.


def test_a_pattern_of_ones_own(environment: dict[str, str], job: Callable[[], Job]) -> None:
    script = "echo row 5 of table 1, 80 in all"
    words = ["run", "--pattern", r"row (?P<done>\d+) .* (?P<total>\d+) in all", "--", "sh", "-c", script]
    assert run(*words, environment=environment).status == 0
    assert (job()["progress"], job()["size"]) == ("5", "80")


def test_a_count_without_a_total_ends_the_one_before(environment: dict[str, str], job: Callable[[], Job]) -> None:
    script = "for n in 1 2 3; do echo $n/3; done; echo '10it [00:00, 9.9it/s]'; echo '12it [00:00, 9.9it/s]'"
    assert run(*sh(script), environment=environment).status == 0
    assert (job()["progress"], job()["size"]) == ("12", "0")


def test_it_starts_quickly() -> None:
    script = "import sys, headway.cli.run.run; print('grpc' in sys.modules, 'google.protobuf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert re.fullmatch("False False\n", done.stdout)
