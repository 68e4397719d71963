"""`headway pipe`: it copies as `cat` does, and the job tells how much."""

import json
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.run import HEADWAY, Cli, run
from tests.support.waiting import until

Job = dict[str, Any]


def state(job: Job) -> tuple[str, str, str, str]:
    return job["status"].removeprefix("JOB_STATUS_"), job["progress"], job["size"], job["unit"]


def test_bytes_of_a_file(cli: Cli, environment: dict[str, str], job: Callable[[], Job], tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    file = tmp_path / "in"
    file.write_bytes(data)
    with file.open("rb") as source:
        done = subprocess.run([*HEADWAY, "pipe"], env=environment, stdin=source, capture_output=True, check=False)
    assert (done.returncode, done.stdout == data, done.stderr) == (0, True, b"")
    assert state(job()) == ("COMPLETED", "5000000", "5000000", "bytes")
    assert json.loads(cli("results", job()["id"]).out)["bytes"] == 5_000_000


def test_the_rest_of_a_file(environment: dict[str, str], job: Callable[[], Job], tmp_path: Path) -> None:
    file = tmp_path / "in"
    file.write_bytes(b"x" * 1000)
    with file.open("rb") as source:
        os.lseek(source.fileno(), 400, os.SEEK_SET)
        done = subprocess.run([*HEADWAY, "pipe"], env=environment, stdin=source, capture_output=True, check=False)
    assert len(done.stdout) == 600
    assert state(job()) == ("COMPLETED", "600", "600", "bytes")


def test_lines(environment: dict[str, str], job: Callable[[], Job]) -> None:
    words = ["pipe", "--lines", "--size", "9", "--name", "Names", "--label", "a=b"]
    result = run(*words, environment=environment, stdin="a\nb\nc")
    assert (result.status, result.out) == (0, "a\nb\nc")
    assert state(job()) == ("COMPLETED", "3", "9", "lines")
    assert (job()["name"], job()["labels"]) == ("Names", {"a": "b"})


def test_nothing(environment: dict[str, str], job: Callable[[], Job]) -> None:
    result = run("pipe", environment=environment, stdin="")
    assert (result.status, result.out, result.err) == (0, "", "")
    assert state(job())[:2] == ("COMPLETED", "0")


@pytest.mark.parametrize(
    "script",
    [
        "printf 'a\\0b' | $CAT; echo $?",
        "echo x >file; $CAT <file; $CAT <file | tr x y; $CAT <file >new; echo y | $CAT >>new; tail new",
        "yes | $CAT | head -n 2; echo ${PIPESTATUS[@]}",
        "$CAT </dev/zero | head -c 3 | od -c; echo ${PIPESTATUS[@]}",
        "$CAT <&- 2>/dev/null; echo $?; echo x | $CAT 2>/dev/null >&-; echo $?; echo x | $CAT 2>&-",
        "timeout 0.5 $CAT </dev/zero >/dev/null; echo $?",
    ],
)
def test_it_is_as_cat(environment: dict[str, str], tmp_path: Path, script: str) -> None:
    def outcome(cat: str) -> tuple[int, str, str]:
        given = {**environment, "CAT": cat}
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=given, capture_output=True, text=True, timeout=30, check=False
        )
        return done.returncode, done.stdout, done.stderr

    expected = outcome("cat")
    assert outcome(f"{shlex.join(HEADWAY)} pipe") == expected


def open_pipe(environment: dict[str, str], *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*HEADWAY, "pipe", *words], env=environment, stdin=-1, stdout=-1, stderr=-1)


def test_what_comes_goes_on_at_once(environment: dict[str, str], job: Callable[[], Job]) -> None:
    process = open_pipe(environment)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"abc")
    process.stdin.flush()
    assert process.stdout.read(3) == b"abc"
    until(lambda: job().get("progress") == "3")
    assert state(job()) == ("RUNNING", "3", "0", job()["unit"])
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_who_does_not_wait_is_waited_for(environment: dict[str, str], job: Callable[[], Job]) -> None:
    data = os.urandom(500_000)
    source, feed = os.pipe()
    drain, sink = os.pipe()
    os.set_blocking(source, False)
    os.set_blocking(sink, False)
    process = subprocess.Popen([*HEADWAY, "pipe"], env=environment, stdin=source, stdout=sink)
    os.close(source)
    os.close(sink)
    until(lambda: bool(job()))

    def write() -> None:
        with os.fdopen(feed, "wb") as file:
            file.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(drain, "rb") as reader:
        assert reader.read() == data
    writer.join()
    assert process.wait(timeout=10) == 0
    assert state(job())[:2] == ("COMPLETED", "500000")


def test_a_reader_that_goes_away(environment: dict[str, str], job: Callable[[], Job]) -> None:
    process = open_pipe(environment)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    process.stdin.write(b"abc")
    process.stdin.flush()
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (-signal.SIGPIPE, b"")
    assert job()["status"] == "JOB_STATUS_FAILED"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_end_it(environment: dict[str, str], job: Callable[[], Job], number: signal.Signals) -> None:
    process = open_pipe(environment)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"abc")
    process.stdin.flush()
    process.stdout.read(3)
    process.send_signal(number)
    assert process.wait(timeout=10) == -number
    process.communicate()
    ended = job()
    assert ended["error"]["message"] == f"killed by {number.name}"
    assert ended["status"] == f"JOB_STATUS_{'CANCELLED' if number == signal.SIGINT else 'FAILED'}"


def test_errors_of_input_and_output(environment: dict[str, str], job: Callable[[], Job]) -> None:
    with Path("/proc/self/mem").open("rb") as unreadable:
        done = subprocess.run(
            [*HEADWAY, "pipe"], env=environment, stdin=unreadable, capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "headway: cannot read the input: Input/output error\n")
    assert job()["error"]["message"] == "cannot read the input: Input/output error"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*HEADWAY, "pipe"], env=environment, input="x", stdout=full, stderr=-1, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "headway: cannot write the output: No space left on device\n")


def test_cancellation(cli: Cli, environment: dict[str, str], job: Callable[[], Job]) -> None:
    process = open_pipe(environment)
    until(lambda: bool(job()))
    assert cli("cancel", job()["id"], "--reason", "enough").status == 0
    assert process.wait(timeout=20) == -signal.SIGTERM
    process.communicate()
    assert job()["status"] == "JOB_STATUS_CANCELLED"


@pytest.mark.parametrize("target", ["127.0.0.1:1", "not an address"])
def test_without_a_server(environment: dict[str, str], tmp_path: Path, target: str) -> None:
    environment |= {"HEADWAY_TARGET": target, "HEADWAY_SPOOL": str(tmp_path)}
    result = run("pipe", environment=environment, stdin="abc")
    assert (result.status, result.out) == (0, "abc")
    assert result.err.count("\n") <= 1
    assert run("pipe", "--quiet", environment=environment, stdin="abc").err == ""
