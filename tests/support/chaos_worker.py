"""The worker of the chaos table: an import that knows nothing of what happens to its tracker.

`python -m tests.support.chaos_worker PLAN`, a Plan as JSON. What it says of itself goes into its diary, so that its
standard output is that of an import and nothing else.
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import headway
import headway._engine.dispatcher

Bug = Literal["", "counts twice", "forgets to finish", "waits for its tracker"]

CHECKPOINT = 100
"""Records from one checkpoint to the next."""

NAME = "Import, renamed"
"""What the job is called from record 50 on."""


@dataclass(frozen=True)
class Plan:
    """What a worker shall do."""

    job_id: str
    diary: str
    """Path of the file for what it says of itself."""
    records: int
    pace: float
    """Seconds for each record."""
    raise_at: int = -1
    """The record that it breaks down on."""
    die_at: int = -1
    """The record that it is killed on."""
    cancellable: bool = False
    resumes: bool = False
    audited: bool = False
    """Whether it notes what was acknowledged."""
    heartbeat: float = 60.0
    exit_timeout: float = 10.0
    answer_timeout: float = headway._engine.dispatcher.ANSWER_TIMEOUT
    bug: Bug = ""
    """A fault planted in it."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def call_statistics(done: int) -> dict[str, int]:
    """Of the first `done` records."""
    updated = (done + 2) // 3
    return {"added": done - updated, "updated": updated}


def errors(done: int) -> int:
    """Of the first `done` records so many have a bad leader: numbers 3, 10, 17, …"""
    return (done + 3) // 7


def checkpoint(done: int) -> dict[str, int]:
    """The variables of a worker that has done so many records."""
    return {"offset": done, **call_statistics(done)}


class Diary:
    """One line of JSON for each note, there as soon as it is written."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def note(self, **words: float) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(words) + "\n")


class Import:
    """A few thousand records, and one job that tells of them."""

    def __init__(self, plan: Plan, job: headway.Job, diary: Diary) -> None:
        self._plan = plan
        self._job = job
        self._diary = diary
        self._index = job.part("index")
        self._told = job.snapshot.error_count
        self.done = 0
        self.behind = 0.0

    def take_up(self) -> None:
        """Goes back to the last checkpoint: what was told of later records is told again, and counts once."""
        job = self._job
        offset = job.get("offset") or 0
        assert isinstance(offset, int)
        job.name = NAME
        self.done = offset
        job.progress = offset
        self._index.progress = offset // 10
        job.count("added", call_statistics(offset)["added"] - job.snapshot.counters["added"])
        job.count("updated", call_statistics(offset)["updated"] - job.snapshot.counters["updated"])

    def run(self) -> None:
        plan = self._plan
        began, first = time.monotonic(), self.done
        for number in self._job.track(range(first, plan.records), cancellable=plan.cancellable):
            self._work(number)
            if (number + 1) % 1000 == 0:
                print(number + 1, "records", flush=True)
            late = time.monotonic() - began - (number - first) * plan.pace
            if late < -0.01:
                time.sleep(-late)
            elif plan.pace:
                self.behind = max(self.behind, late)

    def _work(self, number: int) -> None:
        plan, job = self._plan, self._job
        if number == plan.raise_at:
            raise ValueError(f"record {number} is beyond repair")
        if number == plan.die_at:
            self._diary.note(died=number)
            os.kill(os.getpid(), signal.SIGKILL)
        job.count("added" if number % 3 else "updated", 2 if plan.bug == "counts twice" and number == 50 else 1)
        if number % 7 == 3 and errors(number) >= self._told:
            job.record_error(f"record {number}", "the leader is 23 bytes long", "BAD_LEADER")
        if number % 10 == 9:
            self._index.advance()
        self.done = number + 1
        if self.done % CHECKPOINT == 0:
            job.message = f"record {self.done}"
            job.checkpoint(checkpoint(self.done))
        if number == 50:
            job.name = NAME
        if number == 60 and plan.bug == "waits for its tracker":
            job.flush()


def audit(job: headway.Job, diary: Diary, counted: Import) -> None:
    """Notes time and again how many records have been acknowledged."""
    while True:
        done = counted.done
        if job.flush(2.0):
            diary.note(acknowledged=done)


def begin(hw: headway.Client, plan: Plan) -> headway.Job:
    """The job of this import."""
    if plan.resumes:
        try:
            return hw.resume(None, plan.job_id)
        except headway.NotFoundError:
            # Its worker died before the server heard of it.
            pass
    return hw.job(
        name="Import", job_id=plan.job_id, size=plan.records, unit="records", heartbeat_timeout=plan.heartbeat
    )


def main(plan: Plan) -> int:
    """The exit status."""
    headway._engine.dispatcher.ANSWER_TIMEOUT = plan.answer_timeout
    diary = Diary(plan.diary)
    try:
        with headway.connect(exit_timeout=plan.exit_timeout) as hw:
            asked = time.monotonic()
            with begin(hw, plan) as job:
                begun = time.monotonic()
                diary.note(began=begun - asked)
                work = Import(plan, job, diary)
                if plan.resumes:
                    work.take_up()
                if plan.audited:
                    threading.Thread(target=audit, args=(job, diary, work), daemon=True).start()
                try:
                    work.run()
                    job.results = {"records": work.done, **call_statistics(work.done)}
                finally:
                    diary.note(done=work.done, behind=work.behind, ended=time.monotonic())
                    if plan.bug == "forgets to finish":
                        print(work.done, "records imported", flush=True)
                        os._exit(0)
    except headway.JobCancelled as cancelled:
        print("cancelled:", cancelled, flush=True)
        return 3
    print(work.done, "records imported", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Plan(**json.loads(sys.argv[1]))))
