"""Shows a run as a Headway job. Whatever becomes of the server, the import goes on."""

import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import headway
from examples.ledger import Run, TakenOverError, faults_of


class Tracker:
    """A run's job, as a context manager that ends it: COMPLETED at the block's end, FAILED by an exception.

    What is told is the difference between the ledger and what Headway has, so that a crash between the two costs
    nothing: the next process tells what the last one could not.
    """

    def __init__(self, client: headway.Client, session: str, name: str, run: Run, *, resumed: bool) -> None:
        self._client = client
        self._session = session
        self._name = name
        self._run = run
        self._resumed = resumed
        self._job: headway.Job | None = None
        self._told_counters: dict[str, int] = {}
        self._told_errors = 0

    def __enter__(self) -> Self:
        self._find_job()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            if self._job is not None:
                self._job.__exit__(kind, error, trace)
            return
        if self._job is None and not self._run.told:
            # The server did not answer when this process began. Perhaps it answers now.
            self._find_job()
        if self._job is not None:
            # After the import a cancellation request comes too late.
            self._report(self._job)
            self._job.message = "all records read"
            self._job.finish({**self._run.counters, "failed": self._run.failed})

    def note_end(self) -> None:
        """Notes in the ledger whether Headway has the end; call it once the client is closed and all delivered."""
        if self._job is not None and self._job.status is headway.Status.COMPLETED:
            self._run.told = True
            self._run.save(only=[Run.told])

    def tell(self) -> None:
        """Tells what the ledger holds. Raises JobCancelled if somebody wants the import to end, TakenOverError."""
        job = self._job
        if job is None:
            return
        job.raise_if_cancelled()
        if job.stopped is not None and job.stopped.reason == "STALE_ATTEMPT":
            raise TakenOverError("another process has taken this import over; this one stops")
        self._report(job)
        job.message = f"reading {Path(self._run.file_name).name}"

    def _report(self, job: headway.Job) -> None:
        run = self._run
        for name, total in run.counters.items():
            job.count(name, total - self._told_counters.get(name, 0))
        if run.failed > self._told_errors:
            for fault in faults_of(run, after=self._told_errors):
                job.record_error(fault.record, fault.message, fault.code)
        self._told_counters, self._told_errors = run.counters, run.failed
        job.progress = run.done
        # Rides with the numbers above: they are stored together or not at all.
        job.checkpoint(run.checkpoint)

    def _find_job(self) -> None:
        try:
            if self._resumed:
                self._take_over()
            else:
                self._create()
        except headway.UnavailableError:
            print("Headway does not answer; the import goes on all the same", file=sys.stderr)
        except headway.HeadwayError as error:
            print(f"Headway cannot follow this import: {error.message}", file=sys.stderr)

    def _create(self) -> None:
        run = self._run
        self._follow(self._client.job(self._session, self._name, job_id=run.job_id, size=run.size, unit="records"))

    def _take_over(self) -> None:
        run = self._run
        if self._client.fetch(self._session, run.job_id) is None:
            # Never created, or cleared by somebody, or all of it waits in the spool: that is delivered first.
            self._create()
        job = self._client.fetch(self._session, run.job_id)
        if job and job.status is headway.Status.COMPLETED and run.done == run.size:
            self._job = None
            run.told = True
            run.save(only=[Run.told])
        elif self._job is None:
            # Where it failed or was cancelled, a new job continues it.
            self._follow(self._client.resume(self._session, run.job_id))

    def _follow(self, job: headway.Job) -> None:
        self._job = job
        self._told_counters = dict(job.snapshot.counters)
        self._told_errors = job.snapshot.error_count
        self._run.job_id, self._run.attempt = job.id, job.attempt
        self._run.save(only=[Run.job_id, Run.attempt])
