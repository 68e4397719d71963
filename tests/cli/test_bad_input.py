"""What goes wrong: one line that says what to do, a documented exit status, never a traceback."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.run import HEADWAY, Cli, Result, run, spawn
from tests.support.server import ServerProcess

NewJob = Callable[..., str]
JOB = "0" * 32


def one_line(result: Result) -> str:
    """What it complained of, in the one line that it may take."""
    assert result.out == ""
    assert result.err.startswith("headway: ")
    assert result.err.endswith("\n")
    assert result.err.count("\n") == 1
    return result.err


@pytest.mark.parametrize(
    "target", ["a:b:c", "host", "host:", ":1", "host:0", "host:70000", "http://h:1/x", "h h:1", "[::1:1", "host:x"]
)
def test_a_target_that_is_none(cli: Cli, target: str) -> None:
    result = cli("list", "--target", target)
    assert result.status == 2
    assert "host:port" in one_line(result)


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["get"],
        ["get", JOB, "more"],
        ["create", "--size", "-1"],
        ["create", "--size", "many"],
        ["create", "--label", "a"],
        ["create", "--heartbeat-timeout", "soon"],
        ["create", "--nam", "abbreviated"],
        ["report", JOB, "--progress", "1", "--advance", "1"],
        ["report", JOB, "--count", "added"],
        ["report", JOB, "--error", ":CODE"],
        ["report", JOB, "--set", "x=9007199254740993"],
        ["finish", JOB, "--results", "not json"],
        ["finish", JOB, "--results", "1e400"],
        ["finish", JOB, "--results", "NaN"],
        ["finish", JOB, "--results", '"\\ud800"'],
        ["finish", JOB, "--results", "[" * 99 + "]" * 99],
        ["finish", JOB, "--results", "1", "--results-file", "x"],
        ["finish", JOB, "--results-file", "/nowhere/at/all"],
        ["finish", JOB, "--results-file", "/"],
        ["finish", JOB, "--results-file", "/bin/true"],
        ["fail", JOB],
        ["fail", JOB, "--message", "m", "--code", "OK"],
        ["set", JOB],
        ["list", "--status", "broken"],
        ["list", "--timeout", "x"],
        ["list", "--ca", "/nowhere/ca.pem"],
        ["completion", "tcsh"],
        ["--json", "serve"],
    ],
    ids=lambda words: " ".join(words)[:60],
)
def test_wrong_usage(cli: Cli, words: list[str]) -> None:
    result = cli(*words)
    assert result.status == 2
    one_line(result)


@pytest.mark.parametrize(
    "words",
    [
        ["get", "xyz"],
        ["get", "../../etc/passwd"],
        ["create", "--id", "0"],
        ["create", "--name", "n" * 300],
        ["list", "--session", "s" * 300],
        ["list", "--session", "a\x1b[2Jb"],
        ["list", "--session", "-"],
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_what_the_server_refuses(cli: Cli, words: list[str]) -> None:
    result = cli(*words)
    assert result.status == 1
    assert one_line(result).rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lsit"], "there is no command 'lsit'; did you mean list? (see headway --help)"),
        (["frobnicate"], "there is no command 'frobnicate' (see headway --help)"),
        (["report", JOB, "--mesage", "x"], "there is no option --mesage; did you mean --message? (see headway report"),
        (["fail", JOB, "--mesage=x"], "there is no option --mesage; did you mean --message? (see headway fail --help)"),
        (["--session", "x", "create", "--nam", "x"], "did you mean --name? (see headway create --help)"),
        (["run", "--size", "x", "prog", "--mesage"], "'x' is not a whole number"),
        (["run", "--nmae", "x", "prog"], "there is no option --nmae; did you mean --name?"),
        (["report", "--count", "a=1", JOB], "a job's id, not NAME=VALUE; write the id before the options"),
        (["report", "--set", "a=1", JOB], "a job's id, not NAME=VALUE; write the id before the options"),
        (["report", "--error", "r1", JOB], "the job's id is missing; write it before options"),
        (["list", "--session", ""], "--session is empty; check that its variable is set"),
        (["list", "--target", ""], "--target is empty; check that its variable is set"),
        (["report", ""], "the job's id is empty; check that its variable is set"),
    ],
    ids=lambda words: " ".join(words)[:40] if isinstance(words, list) else "",
)
def test_an_error_names_the_mistake_and_what_was_meant(cli: Cli, words: list[str], says: str) -> None:
    result = cli(*words)
    assert result.status == 2
    assert says in one_line(result)


def test_the_port_of_the_page_is_no_target(cli: Cli, server: ServerProcess) -> None:
    result = cli("list", "--target", server.http_address)
    assert result.status == 4
    assert "speaks HTTP" in one_line(result)


def test_no_command_shows_the_help(cli: Cli) -> None:
    result = cli()
    assert result.status == 2
    assert "exit status:" in result.out


def test_no_session(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWAY_SESSION")
    result = cli("list")
    assert result.status == 2
    assert "HEADWAY_SESSION" in one_line(result)


def test_no_server(cli: Cli) -> None:
    for words in (["list"], ["watch", JOB]):
        result = cli(*words, "--target", "127.0.0.1:1")
        assert result.status == 4
        assert "headway serve" in one_line(result)


def test_what_is_not_utf_8(environment: dict[str, str]) -> None:
    job = run(b"create", b"--name", b"Caf\xe9", environment=environment).out.strip()
    words = [b"--message", b"\xe9t\xe9", b"--set", b"place=\xe9", b"--count", b"\xe9=1"]
    # As of xargs: all but the one byte counts.
    errors = [b"--error", b"one:BAD", b"tw\xf6:BAD:\xe9", b"three"]
    assert run("report", job, *words, *errors, environment=environment) == Result(0, "", "")
    seen = json.loads(run("get", job, "--json", environment=environment).out)
    assert (seen["name"], seen["message"]) == ("Caf\ufffd", "\ufffdt\ufffd")
    assert seen["counters"] == {"\ufffd": "1"}
    listed = run("errors", job, environment=environment).out.splitlines()
    assert listed == ["one  BAD", "tw\ufffd  BAD  \ufffd", "three"]
    assert run("vars", job, environment=environment).out == 'place="\ufffd"\n'
    secret = run(b"list", b"--session", b"\xff", environment=environment)
    assert secret.status == 2
    assert "UTF-8" in one_line(secret)
    result = run("list", environment={**environment, "HEADWAY_SESSION": "\udcff"})
    assert result.status == 2
    one_line(result)


@pytest.mark.parametrize("token", ["é", "a\nb", "\x1b[2J"])
def test_a_token_that_is_none(cli: Cli, token: str) -> None:
    result = cli("list", "--token", token)
    assert result.status == 2
    one_line(result)


def test_a_plain_server_where_tls_is_expected(server: ServerProcess, environment: dict[str, str]) -> None:
    result = run("list", "--target", f"https://{server.address}", environment=environment)
    assert result.status == 4
    assert "over TLS" in one_line(result)


def test_a_timeout_may_be_long_or_short(cli: Cli) -> None:
    assert cli("list", "--timeout", "999999999d").status == 0
    assert cli("list", "--timeout", "0").status == 4


def test_results_that_are_not_utf_8(cli: Cli, new_job: NewJob, tmp_path: Path) -> None:
    file = tmp_path / "latin"
    file.write_bytes(b'"\xe9"')
    result = cli("finish", new_job(), "--results-file", str(file))
    assert result.status == 2
    assert "UTF-8" in one_line(result)


def test_a_closed_output_is_quiet(new_job: NewJob, environment: dict[str, str]) -> None:
    job = new_job()
    for words in (["list"], ["get", job], ["watch", job], ["list", "--json"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [*HEADWAY, *words], env=environment, stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("command", ["list", "create", "get {job}", "--version", "report {job}"])
def test_no_output_at_all_is_an_error_for_what_prints(
    new_job: NewJob, environment: dict[str, str], command: str
) -> None:
    words = f"exec {' '.join(HEADWAY)} {command.format(job=new_job())} >&-"
    done = subprocess.run(["sh", "-c", words], env=environment, capture_output=True, timeout=30, check=False)
    silent = command.startswith("report")
    assert done.returncode == (0 if silent else 1)
    assert done.stderr == (b"" if silent else b"headway: cannot write the output: standard output is closed\n")


def test_a_full_disk_is_named(new_job: NewJob, environment: dict[str, str]) -> None:
    new_job()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*HEADWAY, "list"], env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "headway: cannot write the output: No space left on device\n"


def test_a_terminal_without_unicode_gets_escapes(new_job: NewJob, environment: dict[str, str]) -> None:
    new_job("--name", "é📚")
    result = run("list", environment={**environment, "PYTHONIOENCODING": "ascii"})
    assert result.status == 0
    assert "\\xe9\\U0001f4da" in result.out


def test_ctrl_c_is_quiet(new_job: NewJob, environment: dict[str, str]) -> None:
    job = new_job()
    process = spawn("watch", job, environment=environment)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(2)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, "", "")


def test_the_server_part_may_be_missing(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "peewee.py").write_text("raise ModuleNotFoundError(\"No module named 'peewee'\", name='peewee')")
    result = run("serve", environment={**environment, "PYTHONPATH": str(tmp_path)})
    assert result.status == 1
    assert "pip install 'headway[server]'" in one_line(result)


def test_serve_hands_its_options_on(environment: dict[str, str]) -> None:
    result = run("serve", "--help", environment=environment)
    assert result.status == 0
    assert "--database" in result.out
    assert run("serve", "--no-such-option", environment=environment).status == 2
