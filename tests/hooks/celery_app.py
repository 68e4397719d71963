"""Tasks as a user would write them. A worker imports this file under the name `celery_app`."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from celery import Celery, Task, group

from headway.celery import current_job, track

URL = os.environ["BROKER"]

app = Celery("imports", broker=URL, backend=URL)
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
track(app, tasks=os.environ["TASKS"].split() if "TASKS" in os.environ else None)


@app.task
def stage(size: int) -> dict[str, int]:
    job = current_job()
    for _ in job.track(range(size)):
        job.count("added")
    return {"added": size}


@app.task
def wait_for(path: str) -> None:
    job = current_job()
    job.size = 10
    job.advance(3)
    while not Path(path).exists():
        time.sleep(0.01)
    job.advance(7)


@app.task
def fail() -> None:
    current_job().advance(2)
    raise ValueError("bad record")


@app.task(bind=True, max_retries=3)
def retry(self: "Task[..., str]") -> str:
    job = current_job()
    done = job.get("done") or 0
    assert isinstance(done, int)
    job.progress = done
    job.advance(4)
    job.checkpoint({"done": job.progress})
    if self.request.retries < 2:
        raise self.retry(exc=OSError("no disk"), countdown=0.1)
    return "at last"


@app.task(autoretry_for=(Exception,), retry_kwargs={"countdown": 0.1, "max_retries": 2})
def until_cancelled_and_retried() -> None:
    until_cancelled()


@app.task
def until_cancelled() -> None:
    job = current_job()
    job.advance()
    while True:
        job.raise_if_cancelled()
        time.sleep(0.01)


@app.task(bind=True)
def replaced(self: "Task[..., object]", size: int) -> object:
    current_job().advance(3)
    delivery = self.request.delivery_info
    assert delivery is not None
    raise self.replace(stage.s(size).set(queue=str(delivery["routing_key"])))


@app.task(bind=True)
def replaced_by_group(self: "Task[..., object]", sizes: list[int]) -> object:
    delivery = self.request.delivery_info
    assert delivery is not None
    queue = str(delivery["routing_key"])
    collect = app.tasks["celery.accumulate"].s(index=0).set(queue=queue)
    raise self.replace(group(stage.s(size).set(queue=queue) for size in sizes) | collect)


@app.task
def from_threads(size: int) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: current_job().advance(), range(size)))


@app.task
def leave(status: int) -> None:
    current_job().advance(2)
    sys.exit(status)


@app.task(acks_late=True)
def wait_for_late(path: str) -> None:
    wait_for(path)


@app.task
def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(acks_late=True, reject_on_worker_lost=True)
def killed_once(path: str) -> str:
    current_job().advance()
    if not Path(path).exists():
        Path(path).touch()
        current_job().flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@app.task
def no_json() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


@app.task
def large() -> str:
    return "x" * 2 * 1024 * 1024
