"""`headway run` on a terminal: as if it were not there."""

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.run import HEADWAY
from tests.cli.terminal import Terminal
from tests.support.waiting import until

Job = dict[str, Any]
RUN = shlex.join([*HEADWAY, "run", "--"])
WAIT = "while :; do sleep 0.02; done"


def wrapped(script: str) -> list[str]:
    return [*HEADWAY, "run", "--", "sh", "-c", script]


@pytest.fixture(params=["", RUN], ids=["without headway", "with headway"])
def prefix(request: pytest.FixtureRequest) -> str:
    """What stands before a program in a script: whatever such a test says holds without headway too."""
    prefix: str = request.param
    return prefix


@pytest.fixture
def shell(environment: dict[str, str]) -> Iterator[Terminal]:
    """An interactive shell, with job control."""
    command = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
    with Terminal(command, {**environment, "PS1": "$ "}) as terminal:
        terminal.read_until(b"$ ")
        yield terminal
        terminal.type(b"exit\r")
        terminal.end()


def test_the_program_is_on_one(environment: dict[str, str], job: Callable[[], Job]) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && echo terminal; stty size; stty size <&1; echo err >&2; exit 3"
    with Terminal(wrapped(script), environment) as terminal:
        assert terminal.end() == (3, b"terminal\r\n30 90\r\n30 90\r\nerr\r\n")
    assert job()["error"]["message"].endswith("err")


def test_output_to_a_terminal_alone_is_byte_for_byte_too(environment: dict[str, str]) -> None:
    script = "printf 'a\\nb\\tc\\r50%%\\033[m'"
    with Path(os.devnull).open() as nothing, Terminal(wrapped(script), environment, nothing.fileno()) as terminal:
        assert terminal.end() == (0, b"a\r\nb\tc\r50%\x1b[m")


def test_stdout_and_stderr_stay_apart_where_one_is_a_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    script = f"{shlex.join(wrapped('test -t 1 || echo none; test -t 2 && echo terminal >&2'))} > {tmp_path}/out"
    with Terminal(["sh", "-c", script], environment) as terminal:
        assert terminal.end() == (0, b"terminal\r\n")
    assert (tmp_path / "out").read_text() == "none\n"


def test_keys_reach_the_program(environment: dict[str, str]) -> None:
    with Terminal(wrapped("echo ready; read x; echo got $x"), environment) as terminal:
        terminal.read_until(b"ready\r\n")
        terminal.type(b"abc\r")
        assert terminal.end() == (0, b"abc\r\ngot abc\r\n")


def test_modes_are_the_programs_to_set(environment: dict[str, str]) -> None:
    script = "stty -echo; echo ready; read x; stty echo; echo got $x"
    with Terminal(wrapped(script), environment) as terminal:
        terminal.read_until(b"ready\r\n")
        terminal.type(b"secret\r")
        assert terminal.end() == (0, b"got secret\r\n")
        assert terminal.is_as_before


def test_modes_may_be_set_where_output_goes(environment: dict[str, str]) -> None:
    # As curses does.
    script = "stty -echo -icanon <&1; echo ready; x=$(head -c 1); stty echo icanon <&1; echo got $x"
    with Terminal(wrapped(script), environment) as terminal:
        terminal.read_until(b"ready\r\n")
        assert not terminal.echoes
        terminal.type(b"x")
        assert terminal.end() == (0, b"got x\r\n")
        assert terminal.is_as_before


def test_keys_may_be_read_where_output_goes(environment: dict[str, str]) -> None:
    # As less does.
    script = "stty -echo -icanon <&1; for n in 1 2 3; do echo ready; head -c 1 <&2; done; stty echo icanon <&1"
    with Terminal(wrapped(script), environment) as terminal:
        for key in (b"a", b"b", b"c"):
            terminal.read_until(b"ready\r\n")
            terminal.type(key)
            terminal.read_until(key)
        assert terminal.end() == (0, b"")
        assert terminal.is_as_before


def test_the_window_changes_its_size(environment: dict[str, str]) -> None:
    script = f'trap \'s=$(stty size <&2); echo $s; test "$s" != "40 120" || exit\' WINCH; echo ready; {WAIT}'
    with Terminal(wrapped(script), environment) as terminal:
        terminal.read_until(b"ready\r\n")
        terminal.resize(40, 120)
        terminal.read_until(b"40 120\r\n")
        assert terminal.end()[0] == 0


def test_what_is_typed_ahead_is_for_who_comes_next(environment: dict[str, str], prefix: str, tmp_path: Path) -> None:
    script = f"{prefix} sh -c 'echo ready; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done'; read x; echo got $x"
    with Terminal(["sh", "-c", script], environment) as terminal:
        terminal.read_until(b"ready\r\n")
        terminal.type(b"abc\r")
        terminal.read_until(b"abc\r\n")
        (tmp_path / "go").touch()
        assert terminal.end() == (0, b"got abc\r\n")


def test_keys_are_for_who_reads_them_in_a_pipeline(environment: dict[str, str], prefix: str) -> None:
    script = f"{prefix} sh -c 'echo data; echo ready >&2' | (cat; read x < /dev/tty; echo got $x)"
    with Terminal(["sh", "-c", script], environment) as terminal:
        terminal.read_until(b"ready\r\n")
        terminal.type(b"abc\r")
        terminal.read_until(b"got abc\r\n")
        assert terminal.end()[0] == 0


def test_ctrl_c_goes_to_the_program_once(environment: dict[str, str]) -> None:
    with Terminal(wrapped(f"trap 'echo caught' INT; trap 'exit 6' TERM; echo ready; {WAIT}"), environment) as terminal:
        terminal.read_until(b"ready")
        terminal.type(b"\x03")
        terminal.read_until(b"caught\r\n")
        terminal.process.terminate()
        assert terminal.end() == (6, b"")


def test_ctrl_c_ends_a_scripts_loop(environment: dict[str, str], prefix: str) -> None:
    script = f"for n in 1 2 3; do {prefix} sh -c 'echo ready; {WAIT}'; done; echo survived"
    with Terminal(["bash", "-c", script], environment) as terminal:
        terminal.read_until(b"ready\r\n")
        terminal.type(b"\x03")
        _, rest = terminal.end()
        assert b"survived" not in rest
        assert b"ready" not in rest


def test_ctrl_c_ends_a_loop_of_pipes_too(environment: dict[str, str]) -> None:
    pipe = shlex.join([*HEADWAY, "pipe"])
    script = f"for n in 1 2 3; do (echo ready; exec sleep 60) | {pipe}; done; echo survived"
    with Terminal(["bash", "-c", script], environment) as terminal:
        terminal.read_until(b"ready\r\n")
        terminal.type(b"\x03")
        _, rest = terminal.end()
        assert b"survived" not in rest


def test_ctrl_z_stops_it_and_fg_goes_on(shell: Terminal, prefix: str) -> None:
    shell.type(f"{prefix} sh -c 'echo rea\"\"dy; read x; echo got $x'\r".encode())
    shell.read_until(b"ready\r\n")
    shell.type(b"\x1a")
    shell.read_until(b"Stopped")
    shell.type(b"echo in the sh''ell\r")
    shell.read_until(b"in the shell\r\n")
    shell.type(b"fg\r")
    shell.read_until(b"read x")
    shell.type(b"abc\r")
    shell.read_until(b"got abc\r\n$ ")
    shell.type(b"echo status $?\r")
    shell.read_until(b"status 0\r\n$ ")


def test_a_program_that_stops_itself_is_stopped(shell: Terminal, prefix: str) -> None:
    for number in ("TSTP", "STOP"):
        shell.type(f"{prefix} sh -c 'kill -{number} $$; echo go\"\"ne on'\r".encode())
        shell.read_until(b"Stopped")
        shell.type(b"fg\r")
        shell.read_until(b"gone on\r\n$ ")


def test_in_the_background_it_may_write_but_not_read(shell: Terminal, prefix: str) -> None:
    shell.type(f"{prefix} sh -c 'echo wri\"\"tten; read x; echo got $x' &\r".encode())
    shell.read_until(b"written\r\n")
    until(lambda: b"Stopped" in _jobs(shell))
    shell.type(b"fg\r")
    shell.read_until(b"read x")
    shell.type(b"abc\r")
    shell.read_until(b"got abc\r\n")


def _jobs(shell: Terminal) -> bytes:
    shell.type(b"jobs; echo ask''ed\r")
    return shell.read_until(b"asked\r\n")


def test_what_it_leaves_behind_goes_on_writing(environment: dict[str, str], prefix: str, tmp_path: Path) -> None:
    later = f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo later; echo $? > {tmp_path}/status"
    with Terminal(["sh", "-c", f"{prefix} sh -c '({later}) & echo now'; echo over; cat"], environment) as terminal:
        terminal.read_until(b"over\r\n")
        (tmp_path / "go").touch()
        terminal.read_until(b"later\r\n")
        until(lambda: (tmp_path / "status").exists() and (tmp_path / "status").read_text() == "0\n")
        terminal.type(b"\x04")
        assert terminal.end()[0] == 0


def test_a_program_in_full_screen(environment: dict[str, str], tmp_path: Path) -> None:
    program = "import curses, sys\ndef main(s):\n s.addstr(3, 0, 'ready'); s.refresh()\n sys.exit(s.getch())\n"
    (tmp_path / "program.py").write_text(program + "curses.wrapper(main)\n")
    command = [*HEADWAY, "run", "--", "python3", str(tmp_path / "program.py")]
    with Terminal(command, environment) as terminal:
        terminal.read_until(b"ready")
        assert not terminal.echoes
        terminal.type(b"*")
        assert terminal.end()[0] == ord("*")
        assert terminal.is_as_before


def test_one_in_the_other(environment: dict[str, str], job: Callable[[], Job]) -> None:
    inner = {**environment, "HEADWAY_SESSION": f"{environment['HEADWAY_SESSION']}-2"}
    words = [*HEADWAY, "run", "--", "env", f"HEADWAY_SESSION={inner['HEADWAY_SESSION']}"]
    with Terminal([*words, *wrapped("test -t 1 && echo ready; read x; exit 4")], environment) as terminal:
        terminal.read_until(b"ready\r\n")
        terminal.type(b"abc\r")
        assert terminal.end()[0] == 4
    listed = subprocess.run([*HEADWAY, "list", "--json"], env=inner, capture_output=True, text=True, check=True).stdout
    assert '"JOB_STATUS_FAILED"' in listed
    assert job()["status"] == "JOB_STATUS_FAILED"
