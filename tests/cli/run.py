"""The command line as tests run it: in this process, or in one of its own."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

HEADWAY = [sys.executable, "-m", "headway.cli"]


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


Cli = Callable[..., Result]
"""Takes the words of a command line."""


def run(*words: str | bytes, environment: dict[str, str], stdin: str | None = None) -> Result:
    """Runs `headway` in a process of its own."""
    done = subprocess.run(
        [*HEADWAY, *words],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=30,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def spawn(*words: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Starts `headway` with its output in pipes."""
    return subprocess.Popen(
        [*HEADWAY, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
