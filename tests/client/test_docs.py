"""clients/python/README.md: its examples run as they stand there, and complete their jobs."""

import re
from pathlib import Path

import pytest

import headway
from headway.v1 import job_pb2
from tests.client.test_lifecycle import run
from tests.support.server import ServerProcess

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"
EXAMPLES = re.findall(r"^## (.*?)\n|^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    found, heading = [], ""
    for title, code in EXAMPLES:
        heading = title or heading
        if code:
            found.append((heading, code))
    assert len(found) >= 6
    return found


@pytest.mark.parametrize(("heading", "code"), examples(), ids=lambda value: value if len(value) < 40 else "")
def test_the_examples_complete_their_jobs(
    server: ServerProcess, session: str, hw: headway.Client, tmp_path: Path, heading: str, code: str
) -> None:
    path = tmp_path / "example.py"
    path.write_text(code)
    script = f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')"
    done = run(script, server.address, session, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (job,) = hw.list()
    assert (job.status, job.progress) == (job_pb2.JOB_STATUS_COMPLETED, job.size)
