"""Checks that docs/clients.md shows what the suite finds and what runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import headway
from clients.conformance.languages import LANGUAGES, ROOT, Language
from clients.conformance.page import PAGE, made
from headway.v1 import job_pb2
from tests.clients.suite import CASES, KNOWN, ready
from tests.support.server import ServerProcess


def test_the_page_is_as_it_is_made() -> None:
    assert PAGE.read_text() == made(PAGE.read_text(), CASES, KNOWN), "run 'make docs' and commit what it changes"


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES.keys())
def test_the_worker_in_each_language(server: ServerProcess, session: str, tmp_path: Path, language: Language) -> None:
    ready(language)
    target = f"http://{server.http_address}" if language.transport == "http" else server.address
    environment = {"HEADWAY_TARGET": target, "HEADWAY_SESSION": session, "HEADWAY_SPOOL": str(tmp_path)}
    # The folder of `headway`, for the shell.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        language.worker,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with headway.connect(server.address, session=session) as client:
        (job,) = client.list()
        assert job.status == job_pb2.JOB_STATUS_COMPLETED
        assert (job.name, job.size, job.progress, job.unit) == ("Stage MARC records", 3, 3, "records")
        assert (job.message, dict(job.counters)) == ("staging record 3", {"added": 3})
        assert client.results(None, job.id) == {"added": 3, "updated": 0}
