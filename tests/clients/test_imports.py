"""The example import of every language: the same records give the same counts, with a server that stays, and with one
that is killed in the middle and starts again some seconds later. All run at the same time: they are paced, and mostly
wait."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Self

import pytest

import headway
from clients.conformance.languages import LANGUAGES, ROOT, Language
from examples.marc_import.data import NoDataError, fetch
from examples.marc_import.records import split
from headway.v1 import job_pb2
from tests.clients.suite import ready
from tests.conftest import missing
from tests.support.server import ServerProcess
from tests.support.waiting import until

RECORDS, RATE = 9_000, 600.0
"""Real records, and how many of them a second: 15 s."""

KILLED_AT, OUTAGE = 2_000, 6.0
"""The server is killed after so many records of each import, and starts again after so many seconds: at its end a
client stops waiting for a server that has been unreachable for 10 s."""

IMPORTERS = [language for language in LANGUAGES.values() if language.name not in ("python", "shell")]


@dataclass(frozen=True)
class Outcome:
    """The values that must be the same in every language."""

    status: str
    size: int
    progress: int
    counters: dict[str, int]
    error_count: int
    results: object


@dataclass
class Run:
    """All examples at the same time, each in a session of its own on one server."""

    server: ServerProcess
    folder: Path
    file: Path
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    seen: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Language → the progress that a watcher saw while it ran."""
    outputs: dict[str, tuple[int, str, str]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        spool = {"HEADWAY_SPOOL": str(self.folder / f"{name}-spool"), "HEADWAY_SESSION": self.session(name)}
        self.processes[name] = subprocess.Popen(
            self._command(name),
            cwd=ROOT,
            env=os.environ | spool | {"HEADWAY_TARGET": self._target(name)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._watch, args=(name,), daemon=True).start()

    def session(self, name: str) -> str:
        return f"{self.folder.name}-{name}"

    def output(self, name: str) -> tuple[int, str, str]:
        """How the example ended, and its output."""
        if name not in self.outputs:
            process = self.processes[name]
            out, err = process.communicate(timeout=90)
            self.outputs[name] = process.returncode, out, err
        return self.outputs[name]

    def outcome(self, name: str) -> Outcome:
        with headway.connect(self.server.address, session=self.session(name)) as client:
            (job,) = client.list()
            results = client.results(None, job.id)
        return Outcome(
            status=job_pb2.JobStatus.Name(job.status),
            size=job.size,
            progress=job.progress,
            counters={name: count for name, count in job.counters.items() if count},
            error_count=job.error_count,
            results=results,
        )

    def _command(self, name: str) -> list[str]:
        if name == "python":
            catalogue = str(self.folder / "catalogue.db")
            return [
                sys.executable,
                "-m",
                "examples.marc_import",
                "--catalogue",
                catalogue,
                "--rate",
                f"{RATE:g}",
                str(self.file),
            ]
        return [str(LANGUAGES[name].folder / "bin" / "marc-import"), "--rate", f"{RATE:g}", str(self.file)]

    def _target(self, name: str) -> str:
        return f"http://{self.server.http_address}" if LANGUAGES[name].transport == "http" else self.server.address

    def _watch(self, name: str) -> None:
        with headway.connect(self.server.address, session=self.session(name)) as client:
            for change in client.watch_session():
                if change.HasField("job"):
                    self.seen[name].add(change.job.progress)
                    if change.job.status == job_pb2.JOB_STATUS_COMPLETED:
                        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real records, and some of them again: damaged in ways that every library must find, unchanged, and changed."""
    try:
        real = [raw for _, raw in islice(split(fetch()[-1], 0), RECORDS)]
    except NoDataError as error:
        pytest.skip(str(error))
    book = next(raw for raw in real if raw.isascii())
    damaged = [
        book[:6] + b"z" + book[7:],
        _renamed(book, b"001", b"009"),
        _renamed(book, b"245", b"945"),
        book[:9] + b" " + book[10:],
    ]
    file = tmp_path_factory.mktemp("records") / "books.mrc"
    file.write_bytes(b"".join(real[:5000] + damaged + real[200:210] + real[5000:]) + book[:300])
    return file


def _renamed(raw: bytes, tag: bytes, other: bytes) -> bytes:
    """The record with another tag in its directory, whose entries have 12 bytes from byte 24 on."""
    places = range(24, int(raw[12:17]) - 1, 12)
    (place,) = (place for place in places if raw[place : place + 3] == tag)
    return raw[:place] + other + raw[place + 3 :]


@pytest.fixture(scope="module")
def chosen() -> list[str]:
    """The languages whose tools are installed."""
    names = ["python"]
    for language in IMPORTERS:
        if not language.missing_for_import:
            ready(language)
            names.append(language.name)
    return names


@pytest.fixture(scope="module")
def runs(records: Path, chosen: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Run]]:
    """An undisturbed run, and one whose server is killed."""
    folders = [tmp_path_factory.mktemp(name) for name in ("calm", "killed")]
    with (
        ServerProcess(folders[0]) as calm_server,
        ServerProcess(folders[1]) as killed_server,
        Run(calm_server, folders[0], records) as calm,
        Run(killed_server, folders[1], records) as killed,
    ):
        for name in chosen:
            calm.start(name)
            killed.start(name)
        until(lambda: all(max(killed.seen[name], default=0) >= KILLED_AT for name in chosen), 60)
        killed_server.kill()
        # This does not wait for an event: it is how long the server is unreachable.
        time.sleep(OUTAGE)
        killed_server.start()
        yield calm, killed


@pytest.mark.parametrize("language", IMPORTERS, ids=[language.name for language in IMPORTERS])
def test_the_same_records_to_the_same_counts(runs: tuple[Run, Run], language: Language) -> None:
    if language.name not in runs[0].processes:
        missing(f"{', '.join(language.missing_for_import)}, for the {language.title} example,")
    calm, killed = runs
    seconds = []
    for run in runs:
        status, out, err = run.output(language.name)
        assert status == 0, err
        last = json.loads(out.splitlines()[-1])
        seconds.append(last.pop("seconds"))
        assert last == run.outcome(language.name).results
    expected = _of_python(calm)
    assert expected.status == "JOB_STATUS_COMPLETED"
    assert expected.error_count >= 4
    assert expected.counters.keys() == {"added", "updated", "skipped"} or expected.counters["added"]
    assert calm.outcome(language.name) == expected
    assert killed.outcome(language.name) == expected
    assert seconds[1] <= seconds[0] * 1.02
    assert len([done for done in calm.seen[language.name] if 0 < done < expected.size]) >= 5


def test_the_python_worker_too(runs: tuple[Run, Run]) -> None:
    calm, killed = runs
    assert _of_python(killed) == _of_python(calm)


def _of_python(run: Run) -> Outcome:
    status, _, err = run.output("python")
    assert status == 0, err
    return run.outcome("python")
