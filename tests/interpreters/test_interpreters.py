"""The client's own tests, and a smoke test of server and command line, on every other Python that is supported."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements-dev.txt"
UV = Path(sys.executable).with_name("uv")

TESTS = ("tests/client", "tests/cli/test_commands.py")
TIMEOUT = 1200.0
"""Seconds that the tests on one interpreter may take; they mostly wait, and are done in one or two minutes."""


def supported() -> list[str]:
    """The versions that the package says it supports, but the one that runs this."""
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert len(named) >= 3
    return [version for version in named if version != f"{sys.version_info.major}.{sys.version_info.minor}"]


def interpreters(version: str) -> Iterator[str]:
    """Where there may be one of this version: on the path, and where pyenv keeps those that it has."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(root.glob(f"versions/{version}.*/bin/python{version}")))
    if found := shutil.which(f"python{version}"):
        yield found


def interpreter(version: str) -> str:
    probe = f"import sys; print('%d.%d' % sys.version_info[:2] == {version!r})"
    for path in interpreters(version):
        # The shims of pyenv stand in the path for versions that are not chosen, and fail.
        if subprocess.run([path, "-c", probe], capture_output=True, text=True, check=False).stdout == "True\n":
            return path
    missing(f"Python {version}")
    raise AssertionError


def environment(version: str) -> Path:
    """The Python of a virtual environment with all that the tests need, made once for these requirements."""
    about = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = ROOT / ".cache" / f"python-{version}-{about}"
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        for command in (
            ("venv", "--python", interpreter(version), str(folder)),
            ("pip", "install", "--python", str(python), "--require-hashes", "-r", str(REQUIREMENTS)),
            ("pip", "install", "--python", str(python), "--no-deps", "--no-build-isolation", "--editable", str(ROOT)),
        ):
            subprocess.run([UV, "--quiet", *command], check=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT)
        complete.touch()
    return python


@pytest.mark.long
@pytest.mark.parametrize("version", supported())
def test_this_python_is_supported(version: str, tmp_path: Path) -> None:
    python = environment(version)
    own = ("PYTEST_", "HEADWAY_", "COV_", "PYTHONPATH")
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-n", "3", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}", *TESTS],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(own)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert " skipped" not in done.stdout.splitlines()[-1]
