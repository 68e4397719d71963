"""How the command line starts: quickly, since a script may call it a thousand times."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.run import Cli, run

HEAVY = {"grpc", "google.protobuf", "rich", "argcomplete", "peewee", "headway_server"}


def test_help_loads_nothing_heavy_of_its_own(environment: dict[str, str]) -> None:
    script = """if True:
        import sys
        import headway
        before = set(sys.modules)
        from headway.cli import main
        try:
            main(["--help"])
        except SystemExit:
            pass
        print(*(set(sys.modules) - before))
    """
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.splitlines()[-1].split())


def test_help_explains_the_exit_status(cli: Cli) -> None:
    result = cli("--help")
    assert result.status == 0
    for line in ("0    done", "3    there is no such job", "4    the server does not answer", "130  interrupted"):
        assert line in result.out


def test_every_command_explains_itself(cli: Cli) -> None:
    reading = "get list watch wait open vars results errors completion"
    writing = "create start report finish fail cancel set clear"
    for command in [*reading.split(), *writing.split()]:
        result = cli(command, "--help")
        assert result.status == 0
        assert "--session" in result.out


def test_version(cli: Cli) -> None:
    assert cli("--version").out.startswith("headway ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(cli: Cli, shell: str) -> None:
    result = cli("completion", shell)
    assert result.status == 0
    assert "headway" in result.out


def complete(line: str, environment: dict[str, str], tmp_path: Path) -> list[str]:
    """What a shell is offered at the end of a line."""
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "words"),
    }
    run(environment={**environment, **asked})
    return [word.strip() for word in (tmp_path / "words").read_text().splitlines()]


def test_commands_and_options_are_completed(environment: dict[str, str], tmp_path: Path) -> None:
    assert complete("headway fin", environment, tmp_path) == ["finish"]
    assert "--results-file" in complete("headway finish --res", environment, tmp_path)


def test_jobs_are_completed(cli: Cli, environment: dict[str, str], tmp_path: Path) -> None:
    job = cli("create", "--name", "Import").out.strip()
    for line in ("headway get ", "headway watch ", f"headway finish {job[:20]}"):
        assert job in complete(line, environment, tmp_path)
    elsewhere = {**environment, "HEADWAY_TARGET": "127.0.0.1:1"}
    assert not [word for word in complete("headway get ", elsewhere, tmp_path) if not word.startswith("-")]
