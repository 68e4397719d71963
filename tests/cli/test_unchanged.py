"""A program under `headway run` meets the same world as without, and the world meets the same program."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.run import HEADWAY, run, spawn
from tests.support.waiting import until

Job = dict[str, Any]
RUN = shlex.join([*HEADWAY, "run", "--quiet", "--"])


def outcome(script: str, prefix: str, environment: dict[str, str], folder: Path) -> tuple[int, str, str]:
    """Exit status, output and error of a script that writes $RUN before a program."""
    folder.mkdir()
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**environment, "RUN": prefix},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        text=True,
        errors="surrogateescape",
        check=False,
    )
    shutil.rmtree(folder)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "script",
    [
        # What it is given.
        "exec $RUN env | grep -vE '^(HEADWAY_.*|RUN|_)=' | sort",
        "unset LC_ALL LC_CTYPE LANG; exec $RUN sh -c 'echo $LC_ALL,$LC_CTYPE,$LANG'",
        "LC_CTYPE=C.UTF-8; export LC_CTYPE; exec $RUN sh -c 'echo $LC_CTYPE'",
        "ulimit -c 7 -n 100; umask 027; nice $RUN sh -c 'ulimit -a; umask; nice; pwd'",
        "exec $RUN grep -E '^(Sig|Shd)[A-Z]' /proc/self/status | grep -v SigQ",
        "trap '' INT HUP CHLD USR1; exec $RUN grep SigIgn /proc/self/status",
        "exec $RUN cut -d' ' -f5-8 /proc/self/stat",
        "exec $RUN cat <(echo hi) 7<&- 3</dev/null",
        "exec $RUN sh -c 'ls /proc/self/fd; readlink /proc/self/fd/3 /proc/self/fd/0' 3</dev/zero 4>&1",
        "exec $RUN sh -c 'ls /proc/self/fd | wc -l; [ ! -e /proc/self/fd/0 ]; echo $?' <&-",
        "exec $RUN sh -c '[ ! -e /proc/self/fd/1 ]; echo $? >&2' >&-",
        "exec $RUN sh -c '[ ! -e /proc/self/fd/2 ]; echo $?' 2>&-",
        "echo one two | $RUN cat; printf 'a\\nb\\n' | { $RUN head -c 2; cat; }",
        "printf 'echo mine $*' >mine; chmod +x mine; $RUN ./mine a 'b c'; PATH=.:$PATH; $RUN mine d; echo $?",
        # How it ends.
        "trap '' CHLD; exec $RUN sh -c 'exit 3'",
        'for n in TERM KILL INT SEGV PIPE ABRT RTMIN; do $RUN sh -c "kill -$n \\$\\$" 2>&1; echo $?; done 2>/dev/null',
        "exec $RUN sh -c 'kill -SEGV $$'",
        'for n in 0 1 126 127 128 255; do $RUN sh -c "exit $n"; echo $?; done',
        "set -o pipefail; $RUN sh -c 'exit 3' | cat; echo $?; $RUN yes | head -n 1; echo $?",
        "timeout 0.3 $RUN sleep 60; echo $?",
        "timeout --foreground 0.3 $RUN sleep 60; echo $?",
        # Where its output goes.
        "exec $RUN sh -c 'for n in 1 2 3 4 5 6; do echo out $n; echo err $n >&2; done' 2>&1",
        "$RUN sh -c 'for n in 1 2 3 4 5 6; do echo out $n; echo err $n >&2; done' >file 2>&1; cat file",
        "echo old >file; $RUN sh -c 'echo new; echo err >&2' >>file 2>>file; cat file",
        "$RUN dd if=/dev/zero bs=1 count=1 seek=9 conv=notrunc 2>/dev/null >file; wc -c <file",
        "echo needle >a; $RUN grep -r needle . >out; sort out",
        "echo needle >a; echo needle >out; $RUN grep -r needle . >>out; sort out",
        "{ $RUN echo a; echo b; } >file; cat file; { echo a; $RUN cat; } <<<b >file; cat file",
        "umask 222; $RUN echo x >file; cat file",
        "$RUN /bin/echo x >/dev/full; echo $?",
        "$RUN printf '%s\\377\\0' x",
        "$RUN sh -c 'echo out; echo err >&2' 2>/dev/null; $RUN sh -c 'echo out; echo err >&2' >/dev/null",
    ],
)
def test_what_a_script_sees(environment: dict[str, str], tmp_path: Path, script: str) -> None:
    without = outcome(script, "", environment, tmp_path / "folder")
    assert outcome(script, RUN, environment, tmp_path / "folder") == without


def test_a_reader_learns_of_the_end_with_the_program(environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [*HEADWAY, "run", "--", "sh", "-c", "echo out; exec >&-; read x"], env=environment, stdin=-1, stdout=-1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.read() == b"out\n"
    assert process.poll() is None
    process.communicate(b"\n", timeout=10)


def test_a_writer_learns_that_nobody_reads(environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [*HEADWAY, "run", "--", "sh", "-c", "exec <&-; exec sleep 60"], env=environment, stdin=-1
    )
    assert process.stdin is not None
    with pytest.raises(BrokenPipeError):
        while True:
            os.write(process.stdin.fileno(), b"x" * 65536)
    process.stdin.close()
    process.terminate()
    process.wait(timeout=10)


def test_a_program_learns_that_nobody_reads_before_it_writes(environment: dict[str, str]) -> None:
    script = "import select; poll = select.poll(); poll.register(1, 0); print(poll.poll(), flush=True)"
    process = spawn("run", "--", "python3", "-c", script, environment=environment)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=10)
    assert "BrokenPipeError" in err


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGTSTP])
def test_a_signal_to_its_group_comes_once(environment: dict[str, str], number: signal.Signals) -> None:
    script = (
        "import signal, sys\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, {{{int(number)}, {int(signal.SIGHUP)}}})\n"
        "print('ready', flush=True)\n"
        f"while (n := signal.sigwait({{{int(number)}, {int(signal.SIGHUP)}}})) != {int(signal.SIGHUP)}:\n"
        "    print(n, flush=True)\n"
    )
    process = subprocess.Popen(
        [*HEADWAY, "run", "--", "python3", "-c", script], env=environment, stdout=-1, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(2):
        os.killpg(process.pid, number)
        assert process.stdout.readline() == f"{int(number)}\n"
    # One that is for headway alone comes after any that was handed on.
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "")


def test_a_signal_from_within_does_not_come_back(environment: dict[str, str]) -> None:
    script = "n=0; trap 'n=$((n+1)); echo $n' TERM; kill -TERM 0; sleep 0.2; echo end"
    process = subprocess.Popen(
        [*HEADWAY, "run", "--", "sh", "-c", script], env=environment, stdout=-1, text=True, start_new_session=True
    )
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "1\nend\n")


def test_an_output_that_does_not_wait_is_waited_for(environment: dict[str, str]) -> None:
    drain, sink = os.pipe()
    os.set_blocking(sink, False)
    process = subprocess.Popen([*HEADWAY, "run", "--", "seq", "300000"], env=environment, stdout=sink)
    os.close(sink)
    with os.fdopen(drain, "rb") as reader:
        assert reader.read() == b"".join(b"%d\n" % n for n in range(1, 300001))
    assert process.wait(timeout=10) == 0


def test_what_it_leaves_behind_holds_nobody_up(environment: dict[str, str], tmp_path: Path) -> None:
    script = f"(while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo later; echo $? >&2) & echo now"
    process = spawn("run", "--", "sh", "-c", script, environment=environment)
    assert process.wait(timeout=10) == 0
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=10)
    assert (out, err) == ("later\n", "0\n")


def test_a_file_is_read_along(environment: dict[str, str], job: Callable[[], Job], tmp_path: Path) -> None:
    script = "for n in 1 2 3 4; do echo $n/9; done; read x; for n in 5 6; do echo $n/9; done; echo oh no >&2; exit 3"
    with (tmp_path / "log").open("a") as log:
        log.write("7/8\n8/8\n")
        log.flush()
        process = subprocess.Popen(
            [*HEADWAY, "run", "--", "sh", "-c", script], env=environment, stdin=-1, stdout=log, stderr=log
        )
    until(lambda: job().get("progress") == "4")
    # As logs are cut that grow too long.
    os.truncate(tmp_path / "log", 0)
    process.communicate(b"\n", timeout=10)
    assert (job()["progress"], job()["size"]) == ("6", "9")
    assert job()["error"]["message"].splitlines() == ["exit status 3", *[f"{n}/9" for n in range(1, 7)], "oh no"]


def test_without_cat_it_works_too(environment: dict[str, str], tmp_path: Path) -> None:
    environment["PATH"] = str(tmp_path)
    assert run("run", "--", "/bin/sh", "-c", "echo x; exit 3", environment=environment).status == 3
