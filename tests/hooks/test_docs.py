"""docs/hooks.md keeps its word: what stands there runs."""

import re
import subprocess
import sys
from pathlib import Path

from redis import Redis
from rq import Queue

from headway.v1 import job_pb2
from tests.hooks.conftest import Jobs, end_process
from tests.support.redis import RedisServer
from tests.support.waiting import until

PAGE = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()
COMPLETED = job_pb2.JOB_STATUS_COMPLETED


def blocks(chapter: str) -> list[str]:
    text = PAGE.partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
    found: list[str] = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found
    return found


def test_the_bars(environment: dict[str, str], jobs: Jobs) -> None:
    for block in blocks("tqdm"):
        subprocess.run([sys.executable, "-c", block], env=environment, check=True, capture_output=True, timeout=30)
    assert {name: (job.status, job.progress) for name, job in jobs().items()} == {
        "Stage MARC records": (COMPLETED, 1000),
        "Index": (COMPLETED, 1000),
    }
    assert jobs()["Index"].counters["indexed"] == 1000


def test_the_celery_app(redis: RedisServer, environment: dict[str, str], jobs: Jobs, tmp_path: Path) -> None:
    (block,) = blocks("Celery")
    (tmp_path / "imports.py").write_text(block.replace("redis://localhost", redis.url))
    command = [sys.executable, "-m", "celery", "-A", "imports", "worker", "--pool", "solo"]
    worker = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        send = "from imports import stage; stage.delay(40)"
        subprocess.run([sys.executable, "-c", send], env=environment, check=True, timeout=30)
        until(lambda: "imports.stage" in jobs() and jobs()["imports.stage"].status == COMPLETED, 20)
        assert jobs()["imports.stage"].counters["added"] == 40
    finally:
        end_process(worker)


def test_the_rq_worker(redis: RedisServer, environment: dict[str, str], jobs: Jobs, tmp_path: Path) -> None:
    function, own_class = blocks("RQ")
    (tmp_path / "functions.py").write_text(function)
    (tmp_path / "workers.py").write_text(own_class.replace("nightly", environment["HEADWAY_SESSION"]))
    assert "rq worker --worker-class headway.rq.Worker\n" in PAGE
    for kind, size in (("headway.rq.Worker", 40), ("workers.Worker", 50)):
        with Redis(port=redis.port) as connection:
            Queue("documented", connection=connection).enqueue("functions.stage", size)
        command = [sys.executable, "-m", "rq.cli", "worker", "--worker-class", kind, "--url", redis.url]
        if kind == "workers.Worker":
            del environment["HEADWAY_SESSION"]
        subprocess.run(
            [*command, "--burst", "documented"], env=environment, check=True, capture_output=True, timeout=30
        )
        assert jobs()["functions.stage"].status == COMPLETED
        assert jobs()["functions.stage"].counters["added"] == size
