"""`headway run`: the program's work is its own, and the job tells how it went."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.run import HEADWAY, Cli, run, spawn
from tests.conftest import missing
from tests.support.server import ServerProcess
from tests.support.waiting import until

Job = dict[str, Any]


@pytest.fixture
def job(cli: Cli) -> Callable[[], Job]:
    """The one job of the session, as it stands."""

    def get() -> Job:
        jobs = json.loads(cli("list", "--json").out).get("jobs", [])
        assert len(jobs) == 1
        found: Job = jobs[0]
        return found

    return get


@pytest.fixture
def started(cli: Cli) -> Callable[[], bool]:
    """Whether the job has been created."""
    return lambda: bool(json.loads(cli("list", "--json").out).get("jobs"))


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
    result = run(*sh("echo out; seq 100 >&2; echo last words >&2; exit 3"), environment=environment)
    assert (result.status, result.out) == (3, "out\n")
    ended = job()
    assert ended["status"] == "JOB_STATUS_FAILED"
    lines = ended["error"]["message"].splitlines()
    assert (lines[0], lines[1], lines[-1], len(lines)) == ("exit status 3", "82", "last words", 21)


def test_a_long_error_is_cut(environment: dict[str, str], job: Callable[[], Job]) -> None:
    assert run(*sh("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1"), environment=environment).status == 1
    assert len(job()["error"]["message"]) <= 1000


def test_killed_by_a_signal(environment: dict[str, str], job: Callable[[], Job]) -> None:
    assert run(*sh("kill -9 $$"), environment=environment).status == 137
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


def test_a_reader_that_goes_away_is_the_programs_to_notice(environment: dict[str, str], job: Callable[[], Job]) -> None:
    process = subprocess.Popen([*HEADWAY, "run", "--", "yes"], env=environment, stdout=-1, stderr=-1)
    assert process.stdout is not None
    process.stdout.read(2)
    process.stdout.close()
    process.stdout = None
    process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGPIPE
    assert job()["error"]["message"] == "killed by SIGPIPE"


def test_what_it_leaves_behind_holds_nobody_up(environment: dict[str, str]) -> None:
    started = time.monotonic()
    assert run(*sh("sleep 20 & echo here"), environment=environment).out == "here\n"
    assert time.monotonic() - started < 10


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


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1"])
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
    assert process.wait(timeout=10) == 143
    assert (job()["status"], job()["error"]["message"]) == ("JOB_STATUS_FAILED", "killed by SIGTERM")
    process.communicate()


def test_cancellation_ends_the_program(
    cli: Cli, environment: dict[str, str], job: Callable[[], Job], started: Callable[[], bool]
) -> None:
    script = "trap 'echo bye; exit 4' TERM; while :; do sleep 0.02; done"
    process = spawn(*sh(script), environment=environment)
    until(started)
    assert cli("cancel", job()["id"], "--reason", "wrong file").status == 0
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("bye\n", 4)
    assert job()["status"] == "JOB_STATUS_CANCELLED"


@pytest.mark.parametrize("grace", ["1s", "0"])
def test_at_the_deadline_the_program_is_killed(
    cli: Cli, environment: dict[str, str], job: Callable[[], Job], started: Callable[[], bool], grace: str
) -> None:
    process = spawn(*sh("trap '' TERM; while :; do sleep 0.02; done"), environment=environment)
    until(started)
    assert cli("cancel", job()["id"], "--grace", grace).status == 0
    process.communicate(timeout=30)
    assert process.returncode == 137
    assert job()["status"] == "JOB_STATUS_CANCELLED"


# The tracker is away.


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


def test_progress_is_seen_while_the_program_runs(
    environment: dict[str, str], job: Callable[[], Job], started: Callable[[], bool]
) -> None:
    script = "echo 3/7 > $HEADWAY_PROGRESS_FILE; read x"
    process = subprocess.Popen([*HEADWAY, *sh(script)], env=environment, stdin=-1)
    until(started)
    until(lambda: job()["progress"] == "3" and job()["size"] == "7")
    process.communicate(b"\n", timeout=10)


# On a terminal.


class Terminal:
    """`headway` on a terminal of its own, as a person sees it."""

    def __init__(self, *words: str, environment: dict[str, str], stdin: int | None = None) -> None:
        self._master, slave = pty.openpty()
        self._slave = slave
        self.resize(30, 90)
        self.before = termios.tcgetattr(slave)
        # The program setsid gives it the terminal as its own, as a shell has it.
        on_its_own = ["setsid"] if stdin is not None else ["setsid", "--ctty"]
        self.process = subprocess.Popen(
            [*on_its_own, *HEADWAY, *words],
            env={**environment, "TERM": "xterm"},
            stdin=slave if stdin is None else stdin,
            stdout=slave,
            stderr=slave,
        )
        self.seen = b""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def read_until(self, text: bytes) -> None:
        deadline = time.monotonic() + 20
        while text not in self.seen:
            assert select.select([self._master], [], [], max(deadline - time.monotonic(), 0))[0], self.seen
            self.seen += os.read(self._master, 65536)

    def end(self) -> tuple[int, bytes]:
        """Its exit status and all that it wrote."""
        while self.process.poll() is None:
            if select.select([self._master], [], [], 0.05)[0]:
                self.seen += os.read(self._master, 65536)
        while select.select([self._master], [], [], 0)[0]:
            self.seen += os.read(self._master, 65536)
        after = termios.tcgetattr(self._slave)
        assert after == self.before
        os.close(self._slave)
        os.close(self._master)
        return self.process.returncode, self.seen


def test_on_a_terminal_the_program_is_on_one(environment: dict[str, str], job: Callable[[], Job]) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && echo terminal; stty size; echo err >&2; exit 3"
    terminal = Terminal(*sh(script), environment=environment)
    assert terminal.end() == (3, b"terminal\r\n30 90\r\nerr\r\n")
    assert job()["error"]["message"].endswith("err")


def test_output_to_a_terminal_alone_is_byte_for_byte_too(environment: dict[str, str]) -> None:
    with Path(os.devnull).open() as nothing:
        terminal = Terminal(*sh("printf 'a\\nb\\tc\\r50%%\\033[m'"), environment=environment, stdin=nothing.fileno())
        assert terminal.end() == (0, b"a\r\nb\tc\r50%\x1b[m")


def test_keys_reach_the_program(environment: dict[str, str]) -> None:
    terminal = Terminal(*sh("echo ready; read x; echo got $x"), environment=environment)
    terminal.read_until(b"ready\r\n")
    terminal.type(b"abc\r")
    assert terminal.end() == (0, b"ready\r\nabc\r\ngot abc\r\n")


def test_no_echo_is_the_programs_to_ask_for(environment: dict[str, str]) -> None:
    terminal = Terminal(*sh("stty -echo; echo ready; read x; echo got $x"), environment=environment)
    terminal.read_until(b"ready\r\n")
    terminal.type(b"secret\r")
    assert terminal.end() == (0, b"ready\r\ngot secret\r\n")


def test_ctrl_c_goes_to_the_program(environment: dict[str, str]) -> None:
    script = "trap 'echo caught; exit 6' INT; echo ready; while :; do sleep 0.02; done"
    terminal = Terminal(*sh(script), environment=environment)
    terminal.read_until(b"ready")
    terminal.type(b"\x03")
    status, seen = terminal.end()
    assert (status, seen.count(b"caught")) == (6, 1)


def test_the_window_changes_its_size(environment: dict[str, str]) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.02; done"
    terminal = Terminal(*sh(script), environment=environment)
    terminal.read_until(b"ready\r\n")
    terminal.resize(40, 120)
    assert terminal.end() == (0, b"ready\r\n40 120\r\n")


def test_ctrl_z_stops_it_and_fg_goes_on(environment: dict[str, str]) -> None:
    if not shutil.which("bash"):
        missing("bash")
    words = " ".join([*HEADWAY, "run", "--", "sh", "-c", "'echo rea\"\"dy; read x; echo got $x'"])
    master, slave = pty.openpty()
    shell = subprocess.Popen(
        ["setsid", "--ctty", "bash", "--norc", "--noediting", "-i"],
        env={**environment, "PS1": "$ "},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen = b""

    def type_and_wait(keys: bytes, text: bytes) -> None:
        nonlocal seen
        os.write(master, keys)
        seen = b""
        deadline = time.monotonic() + 20
        while text not in seen:
            assert select.select([master], [], [], max(deadline - time.monotonic(), 0))[0], seen
            seen += os.read(master, 65536)

    type_and_wait(words.encode() + b"\r", b"ready\r\n")
    type_and_wait(b"\x1a", b"Stopped")
    type_and_wait(b"echo in the sh''ell\r", b"in the shell\r\n")
    type_and_wait(b"fg\r", b"read x")
    type_and_wait(b"abc\r", b"got abc\r\n$ ")
    type_and_wait(b"echo status $?\r", b"status 0")
    os.write(master, b"exit\r")
    shell.wait(timeout=10)
    os.close(master)


def test_stdout_and_stderr_stay_apart_where_one_is_a_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    master, slave = pty.openpty()
    script = "test -t 1 || echo no terminal; test -t 2 && echo terminal >&2"
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(
            [*HEADWAY, *sh(script)], env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=slave, check=False
        )
    os.close(slave)
    assert done.returncode == 0
    assert (tmp_path / "out").read_text() == "no terminal\n"
    assert os.read(master, 100) == b"terminal\r\n"
    os.close(master)


# Real programs.


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def http(tmp_path: Path) -> Iterator[str]:
    """The URL of the test's folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def in_the_end(job: Job) -> tuple[str, str, str, str]:
    return job["status"].removeprefix("JOB_STATUS_"), job["progress"], job["size"], job["unit"]


def test_dd(environment: dict[str, str], job: Callable[[], Job]) -> None:
    words = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1M", "count=100", "status=progress"]
    assert run("run", "--size", "104857600", "--", *words, environment=environment).status == 0
    assert in_the_end(job()) == ("COMPLETED", "104857600", "104857600", "bytes")


def test_wget(environment: dict[str, str], job: Callable[[], Job], http: str, tmp_path: Path) -> None:
    if not shutil.which("wget"):
        missing("wget")
    (tmp_path / "big").write_bytes(os.urandom(3_000_000))
    result = run("run", "--", "wget", "-O", str(tmp_path / "copy"), f"{http}/big", environment=environment)
    assert (result.status, in_the_end(job())) == (0, ("COMPLETED", "100", "100", "%"))


def test_wget_on_a_terminal(environment: dict[str, str], job: Callable[[], Job], http: str, tmp_path: Path) -> None:
    if not shutil.which("wget"):
        missing("wget")
    (tmp_path / "big").write_bytes(os.urandom(3_000_000))
    terminal = Terminal("run", "--", "wget", "-O", str(tmp_path / "copy"), f"{http}/big", environment=environment)
    status, seen = terminal.end()
    assert (status, in_the_end(job())) == (0, ("COMPLETED", "100", "100", "%"))
    assert b"100%[=" in seen


def test_curl(environment: dict[str, str], job: Callable[[], Job], http: str, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        missing("curl")
    (tmp_path / "big").write_bytes(os.urandom(3 * 2**20))
    result = run("run", "--", "curl", "-o", str(tmp_path / "copy"), f"{http}/big", environment=environment)
    assert (result.status, in_the_end(job())) == (0, ("COMPLETED", str(3 * 2**20), str(3 * 2**20), "bytes"))


def test_pip_download(environment: dict[str, str], job: Callable[[], Job], http: str, tmp_path: Path) -> None:
    folder = tmp_path / "example"
    folder.mkdir()
    with zipfile.ZipFile(folder / "example-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("example/data", os.urandom(3_000_000))
        wheel.writestr("example-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: example\nVersion: 1.0\n")
        wheel.writestr("example-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("example-1.0.dist-info/RECORD", "")
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "-d", str(tmp_path / "to")]
    result = run("run", "--", *command, "-i", http, "example", environment=environment)
    assert (result.status, in_the_end(job())) == (0, ("COMPLETED", "3000000", "3000000", "bytes")), result


def test_rsync(environment: dict[str, str], job: Callable[[], Job], tmp_path: Path) -> None:
    if not shutil.which("rsync"):
        missing("rsync")
    for name in ("a", "b", "c"):
        (tmp_path / "from").mkdir(exist_ok=True)
        (tmp_path / "from" / name).write_bytes(os.urandom(1_000_000))
    words = ["rsync", "-r", "--info=progress2", f"{tmp_path}/from/", f"{tmp_path}/to/"]
    assert run("run", "--", *words, environment=environment).status == 0
    assert in_the_end(job()) == ("COMPLETED", "100", "100", "%")


def test_pv(environment: dict[str, str], job: Callable[[], Job]) -> None:
    if not shutil.which("pv"):
        missing("pv")
    script = "head -c 3000000 /dev/zero | pv -f -i 0.1 -L 9m -s 3000000"
    assert run("run", "--", "sh", "-c", script, environment=environment).status == 0
    assert in_the_end(job()) == ("COMPLETED", "100", "100", "%")


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
    script = "import sys, headway.cli.run; print('grpc' in sys.modules, 'google.protobuf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert re.fullmatch("False False\n", done.stdout)
