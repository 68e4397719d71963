"""The wheel in a fresh environment: the client alone is small, and each extra brings what the documentation says."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

CLIENT = {
    "argcomplete",
    "googleapis-common-protos",
    "grpcio",
    "headway",
    "markdown-it-py",
    "mdurl",
    "platformdirs",
    "protobuf",
    "pygments",
    "rich",
    "typing-extensions",
}
"""What `pip install headway` may bring: rich's own dependencies are among them."""

EXTRAS = {
    "server": "headway_server.app",
    "postgresql": "psycopg",
    "tqdm": "headway.tqdm",
    "celery": "headway.celery",
    "rq": "headway.rq",
}
"""Each extra of the documentation, and a module that it makes available."""

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    )
    (built,) = folder.glob("*.whl")
    return built


def run(*command: str, status: int = 0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=300, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def installed(folder: Path, wheel: Path, extras: Sequence[str] = ()) -> Path:
    """The folder of the programs of a fresh environment with this wheel, at the versions that the tests use."""
    pins = folder / "pins.txt"
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    pins.write_text("\n".join(line.removesuffix("\\") for line in lines if "==" in line and not line.startswith(" ")))
    run(sys.executable, "-m", "venv", str(folder / "venv"))
    wanted = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
    pip = (str(folder / "venv/bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "install", "--constraint", str(pins), wanted)
    return folder / "venv/bin"


def test_the_client_brings_few_packages(wheel: Path, tmp_path: Path) -> None:
    programs = installed(tmp_path, wheel)
    listed = run(str(programs / "python"), "-m", "pip", "freeze", "--disable-pip-version-check")
    names = {line.split("==")[0].split(" @ ")[0].lower().replace("_", "-") for line in listed.splitlines()}
    assert names <= CLIENT
    assert "usage: headway" in run(str(programs / "headway"), "--help")
    assert "pip install 'headway[server]'" in run(str(programs / "headway"), "serve", status=1)


def test_each_extra_brings_what_it_is_for(wheel: Path, tmp_path: Path) -> None:
    programs = installed(tmp_path, wheel, list(EXTRAS))
    for module in EXTRAS.values():
        run(str(programs / "python"), "-c", f"import {module}")
    assert "--database" in run(str(programs / "headway"), "serve", "--help")
