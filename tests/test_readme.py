"""The workers and commands of README.md and of docs/ run as they are printed, and every link leads somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.support.server import ServerProcess

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
LINKS = [
    (page.relative_to(ROOT), target)
    for page in (README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")))
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
]


def blocks(page: Path, language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return found


def grpcurl() -> str:
    path = shutil.which("grpcurl", path=f"{ROOT / '.tools' / 'bin'}{os.pathsep}{os.environ['PATH']}")
    if path is None:
        missing("grpcurl (make .tools/bin/grpcurl, which needs Go)")
    assert path is not None
    return path


def commands(page: Path, program: str) -> list[str]:
    """Every command of the page that begins with this word."""
    lines = [line for block in blocks(page, "sh") for line in _statements(block)]
    found = [line for line in lines if line.startswith(f"{program} ")]
    assert len(found) > 5
    return found


def _statements(block: str) -> list[str]:
    """The commands of a block: a quote or a backslash carries one over several lines."""
    statements, current = [], ""
    for line in block.splitlines():
        current = f"{current}\n{line}" if current else line
        if current.count("'") % 2 == 0 and not line.endswith("\\"):
            statements.append(current.replace("\\\n", " "))
            current = ""
    return statements


def test_every_grpcurl_command_works(own_server: ServerProcess) -> None:
    program = grpcurl()
    answers = {}
    for command in commands(DOCS / "grpcurl.md", "grpcurl"):
        words = [own_server.address if w == "127.0.0.1:50051" else w for w in shlex.split(command)]
        result = subprocess.run([program, *words[1:]], capture_output=True, text=True, timeout=20, check=False)
        assert result.returncode == 0, f"{command}\n{result.stderr}"
        answers[words[-1].rpartition("/")[2]] = result.stdout
    assert '"progress": "300"' in answers["GetJob"]
    assert '"added": 1180' in answers["GetResults"]
    assert "JOB_STATUS_COMPLETED" in answers["WatchJob"]
    assert "SERVING" in answers["Check"]


def test_every_curl_command_works(own_server: ServerProcess) -> None:
    program = shutil.which("curl")
    if program is None:
        missing("curl (Debian: apt-get install curl)")
    assert program is not None
    answers = {}
    for command in commands(DOCS / "http.md", "curl"):
        words = shlex.split(command.replace("127.0.0.1:8080", own_server.http_address))
        result = subprocess.run(
            [program, "--silent", "--fail-with-body", *words[1:]],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}"
        answers[words[-1].rpartition("/")[2]] = result.stdout
    assert '"percent":25' in answers["poll"]
    assert '"added":1180' in answers["GetResults"]
    assert "headway_calls_total" in answers["metrics"]


def test_the_worker_in_ten_lines_works(own_server: ServerProcess) -> None:
    (worker,) = blocks(README, "python")
    environment = {**os.environ, "HEADWAY_TARGET": own_server.address}
    subprocess.run([sys.executable, "-c", worker], env=environment, check=True, timeout=30)
    listed = subprocess.run(
        [sys.executable, "-m", "headway.cli", "--session", "my-session", "list", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "JOB_STATUS_COMPLETED" in listed.stdout
    assert "Stage MARC records" in listed.stdout


def test_what_is_printed_works_in_a_fresh_shell(own_server: ServerProcess) -> None:
    (activate,) = [line for block in blocks(README, "sh") for line in _statements(block) if "activate" in line]
    (worker,) = blocks(README, "python")
    # The environment that runs these tests, wherever it is.
    steps = [
        activate.replace(".venv", sys.prefix, 1),
        f"python <<'END'\n{worker}END",
        "headway --session my-session list",
    ]
    environment = {
        "HOME": os.environ["HOME"],
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HEADWAY_TARGET": own_server.address,
        "HEADWAY_SPOOL": "",
    }
    done = subprocess.run(
        ["bash", "-euc", "\n".join(steps)], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Stage MARC records" in done.stdout
    assert "COMPLETED" in done.stdout


def test_the_shell_script_works(own_server: ServerProcess) -> None:
    (script,) = [block for block in blocks(README, "sh") if "JOB=$(headway create" in block]
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "HEADWAY_TARGET": own_server.address,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
    }
    check = 'headway results "$JOB"'
    result = subprocess.run(
        ["bash", "-euc", script + check], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert '"files": 3' in result.stdout


@pytest.mark.parametrize(("page", "target"), LINKS, ids=lambda part: str(part))
def test_every_link_leads_somewhere(page: Path, target: str) -> None:
    assert (ROOT / page.parent / target).exists()


def test_the_index_names_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    for page in DOCS.glob("[a-z]*.md"):
        assert f"]({page.name})" in index


def test_every_documented_method_has_its_mirror() -> None:
    from headway.v1 import job_service_pb2

    methods = {m.name for m in job_service_pb2.DESCRIPTOR.services_by_name["JobService"].methods}
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", (DOCS / "koha.md").read_text()))
    assert {name for name in named if name.endswith(("Job", "Progress", "Results", "Variables"))} <= methods
