"""Every command of docs/shell.md and of clients/shell runs, and does what the text says."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from headway import Client, Status, connect
from headway._spool import spool
from headway.v1 import job_pb2
from tests.conftest import missing
from tests.support.server import ServerProcess
from tests.support.waiting import until

ROOT = Path(__file__).parent.parent
BOOK = ROOT / "docs" / "shell.md"
README = ROOT / "clients" / "shell" / "README.md"
EXPORT = ROOT / "clients" / "shell" / "examples" / "nightly-export.sh"

TOOLS = {
    "curl": "Debian: apt-get install curl",
    "jq": "Debian: apt-get install jq",
    "grpcurl": "make .tools/bin/grpcurl",
}
HELPERS = {"export-table": 'for n in 1 2; do echo "$1 $n"; done', "load-name": 'test -n "$1"', "step": 'test -n "$1"'}

SAID = {
    "A script with an end": ["COMPLETED", "3/3 files"],
    "A loop of many rounds": ["COMPLETED", "3/3 names", "COMPLETED", "1/3", "3/3", "3"],
    "Cancel": ["to be cancelled", "CANCELLED", "stopped as asked"],
    "Several processes, one job": ["COMPLETED", "4/4 branches"],
    "Going on where another run stopped": ["COMPLETED", "5/5"],
    "Going on after a failure": ["FAILED", "COMPLETED", "5/5", "COMPLETED", "continues:"],
    "Waiting for another script's job": ["COMPLETED", "7", "COMPLETED"],
    "Many jobs at once": ["2 jobs would be cancelled", "maintenance", "2 jobs cancelled", "2 jobs removed"],
    "While the server is unreachable": ["waiting", "Unseen", "3"],
    "grpcurl": [
        *("2", "2/3 files, 240 rows", "wrong file", "JOB_STATUS_COMPLETED 2", '{"files":2}', 'Nightly "export"'),
        "JOB_NOT_FOUND",
    ],
    "curl": ["false", "75 % of 4 files", "COMPLETED 4/4", '{"files":4}', "COMPLETED", "failed_precondition: JOB_ENDED"],
}
"""What each section prints, in this order."""


def sections(book: Path) -> dict[str, str]:
    """The commands of each section by its title; those before the first are of the title ""."""
    parts = re.split(r"^## (.*)$", book.read_text(), flags=re.MULTILINE)
    titles = ["", *parts[1::2]]
    code = ["\n".join(re.findall(r"^```(?:ba)?sh\n(.*?)^```", part, re.M | re.S)) for part in parts[::2]]
    return dict(zip(titles, code, strict=True))


@pytest.fixture
def environment(server: ServerProcess, session: str, tmp_path: Path) -> dict[str, str]:
    """Where a script of this book runs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADWAY_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), str(ROOT / ".tools" / "bin"), os.environ["PATH"]])
    return {
        **clean,
        "PATH": path,
        "HEADWAY_TARGET": server.address,
        "HEADWAY_SESSION": session,
        "HEADWAY_SPOOL": str(tmp_path / "spool"),
    }


@pytest.fixture
def client(server: ServerProcess, session: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("HEADWAY_SESSION", session)
    with connect(server.address) as opened:
        yield opened


def need(script: str, environment: Mapping[str, str]) -> None:
    """Skips where a tool is missing."""
    for tool, where in TOOLS.items():
        found = subprocess.run(["bash", "-c", f"command -v {tool}"], env=dict(environment), capture_output=True)
        if re.search(rf"\b{tool}\b", script) and found.returncode:
            missing(f"{tool} ({where})")


def play(script: str, environment: Mapping[str, str], folder: Path) -> str:
    """Runs the script; what it prints, on standard output and error."""
    need(script, environment)
    for name, text in HELPERS.items():
        helper = folder / name
        helper.write_text(f"#!/bin/sh\n{text}\n")
        helper.chmod(0o755)
    (folder / "names.txt").write_text("Ada\nGrace\nbob\n")
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}"
    return done.stdout


def in_order(words: Sequence[str], text: str) -> None:
    position = 0
    for word in words:
        found = text.find(word, position)
        assert found >= 0, f"{word!r} is not in {text[position:]!r}"
        position = found + len(word)


def test_every_section_is_known() -> None:
    assert set(sections(BOOK)) - {""} == set(SAID)


@pytest.mark.parametrize("title", SAID)
def test_every_recipe_works(
    title: str, server: ServerProcess, session: str, environment: dict[str, str], tmp_path: Path
) -> None:
    found = sections(BOOK)
    script = f"{found['']}\n{found[title]}".replace("nightly", session)
    script = script.replace("127.0.0.1:50051", server.address).replace("127.0.0.1:8080", server.http_address)
    in_order(SAID[title], play(script, environment, tmp_path))


@pytest.mark.parametrize("title", [title for title, script in sections(README).items() if script and title])
def test_every_command_of_the_readme_works(title: str, environment: dict[str, str], tmp_path: Path) -> None:
    assert "COMPLETED" in play(sections(README)[title], environment, tmp_path)


@pytest.mark.parametrize("book", [BOOK, README])
def test_every_link_leads_somewhere(book: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", book.read_text()):
        assert (book.parent / target).exists(), target


# The example.


def files(folder: Path, names: Sequence[str]) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text(f"{name}\n" * 100)
    return folder


def export(environment: Mapping[str, str], source: Path, target: Path) -> subprocess.Popen[str]:
    need("jq", environment)
    return subprocess.Popen(
        [str(EXPORT), str(source), str(target)],
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def the_job(client: Client) -> job_pb2.Job:
    (job,) = client.list()
    return job


def test_the_example_exports(client: Client, environment: dict[str, str], tmp_path: Path) -> None:
    source = files(tmp_path / "from", ["a.csv", "b c.csv"])
    (source / "folder").mkdir()
    target = tmp_path / "to"
    done = export(environment, source, target)
    assert done.communicate(timeout=60) == ("", "")
    assert done.returncode == 0
    job = the_job(client)
    assert (job.status, job.progress, job.size) == (job_pb2.JOB_STATUS_COMPLETED, 3, 3)
    assert (job.counters["written"], job.error_count) == (2, 1)
    assert client.results(None, job.id) == {"written": 2, "failed": 1}
    assert sorted(file.name for file in target.iterdir()) == ["a.csv.gz", "b c.csv.gz"]


def test_the_example_needs_no_tracker(
    client: Client, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = files(tmp_path / "from", ["a.csv", "b.csv"]), tmp_path / "to"
    done = export({**environment, "HEADWAY_TARGET": "127.0.0.1:1"}, source, target)
    done.communicate(timeout=60)
    assert done.returncode == 0
    assert len(list(target.iterdir())) == 2
    monkeypatch.setenv("HEADWAY_SPOOL", environment["HEADWAY_SPOOL"])
    (spool_file,) = spool.spool_files()
    assert spool.SpoolRecord.decode(spool_file.read_bytes()).name == "Nightly export"


def test_the_example_heeds_a_cancel(client: Client, environment: dict[str, str], tmp_path: Path) -> None:
    source, target = files(tmp_path / "from", ["a.csv", "c.csv"]), tmp_path / "to"
    os.mkfifo(source / "b.csv")
    running = export(environment, source, target)
    until(lambda: any(job.progress == 1 for job in client.list()))
    client.cancel(None, the_job(client).id, reason="enough")
    (source / "b.csv").write_text("late\n")
    running.communicate(timeout=60)
    assert running.returncode == 1
    job = the_job(client)
    assert job_pb2.JobStatus.Name(job.status).endswith(Status.CANCELLED)
    assert job.error.message == "stopped after 2 files"
    assert sorted(file.name for file in target.iterdir()) == ["a.csv.gz", "b.csv.gz"]


def test_the_example_says_why_it_failed(client: Client, environment: dict[str, str], tmp_path: Path) -> None:
    source = files(tmp_path / "from", ["a.csv"])
    done = export(environment, source, source / "a.csv" / "below")
    done.communicate(timeout=60)
    assert done.returncode != 0
    job = the_job(client)
    assert job_pb2.JobStatus.Name(job.status).endswith(Status.FAILED)
    assert "Not a directory" in job.error.message
