"""Functions as a user would write them. An RQ worker imports this file under the name `rq_jobs`."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rq import Retry

from headway.rq import current_job


def stage(size: int) -> dict[str, int]:
    job = current_job()
    for _ in job.track(range(size)):
        job.count("added")
    return {"added": size}


def wait_for(path: str) -> None:
    job = current_job()
    job.size = 10
    job.advance(3)
    while not Path(path).exists():
        time.sleep(0.01)
    job.advance(7)


def fail() -> None:
    current_job().advance(2)
    raise ValueError("bad record")


def _go_on() -> int:
    job = current_job()
    done = job.get("done") or 0
    assert isinstance(done, int)
    job.progress = done
    job.advance(4)
    job.checkpoint({"done": job.progress})
    return job.progress


def retry() -> str:
    if _go_on() < 12:
        raise OSError("no disk")
    return "at last"


def ask_for_retry() -> Retry | str:
    return Retry(max=3) if _go_on() < 12 else "at last"


def never_enough() -> Retry:
    return Retry(max=1)


def until_cancelled() -> None:
    job = current_job()
    job.advance()
    while True:
        job.raise_if_cancelled()
        time.sleep(0.01)


def from_threads(size: int) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: current_job().advance(), range(size)))


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_once(path: str) -> str:
    current_job().advance()
    if not Path(path).exists():
        Path(path).touch()
        current_job().flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def no_json() -> object:
    return Path("x")
