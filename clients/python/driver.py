"""The Python client's driver for the conformance suite: clients/conformance/README.md."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any  # arguments, as they stand in the cases

import grpc
from google.rpc import code_pb2

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import headway
from clients.conformance.describe import state, status
from headway._spool import spool
from headway._spool.sender import Outcome, deliver
from headway.target import open_channel

OPTIONS = (
    "invoker",
    "size",
    "unit",
    "labels",
    "heartbeat_timeout",
    "stall_timeout",
    "retention",
    "pending",
    "job_id",
    "continues",
    "key",
)


class Driver:
    """Does what a case says. Its public methods are the operations."""

    def __init__(self) -> None:
        self._client: headway.Client | None = None
        self._jobs: dict[str, headway.Job] = {}

    @property
    def client(self) -> headway.Client:
        assert self._client is not None, "connect comes first"
        return self._client

    def connect(
        self,
        exit_timeout: float = 10.0,
        call_timeout: float = 10.0,
        token: str | None = None,
        target: str | None = None,
    ) -> None:
        self._client = headway.connect(target, token=token, exit_timeout=exit_timeout, call_timeout=call_timeout)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def create(self, job: str, session: str | None = None, name: str = "", **options: Any) -> dict[str, object]:
        assert set(options) <= set(OPTIONS)
        return self._keep(job, self.client.job(session, name, **options))

    def resume(self, job: str, of: str, session: str | None = None) -> dict[str, object]:
        return self._keep(job, self.client.resume(session, of))

    def fetch(self, job: str, of: str, session: str | None = None) -> dict[str, object] | None:
        found = self.client.fetch(session, of)
        return None if found is None else self._keep(job, found)

    def view(self, job: str) -> dict[str, object]:
        found = self._jobs[job]
        return {
            "id": found.id,
            "name": found.name,
            "invoker": found.invoker,
            "status": str(found.status),
            "progress": found.progress,
            "size": found.size,
            "unit": found.unit,
            "message": found.message,
            "attempt": found.attempt,
            "results": found.results,
            "cancelled": bool(found.cancelled),
        }

    def refresh(self, job: str) -> dict[str, object]:
        self._jobs[job].refresh()
        return self.view(job)

    def progress(self, job: str, value: int, part: str = "", times: int = 1) -> None:
        meter = self._meter(job, part)
        for done in range(value, value + times):
            meter.progress = done

    def advance(self, job: str, part: str = "", by: int = 1, times: int = 1) -> None:
        meter = self._meter(job, part)
        for _ in range(times):
            meter.advance(by)

    def track(self, job: str, items: int, stop_before: int = 0) -> int:
        seen = 0
        with suppress(headway.JobCancelled):
            for number in self._jobs[job].track(range(1, items + 1)):
                seen += 1
                if number == stop_before:
                    break
        return seen

    def count(self, job: str, counter: str, part: str = "", by: int = 1, times: int = 1) -> None:
        for _ in range(times):
            self._meter(job, part).count(counter, by)

    def record_error(
        self, job: str, record: str, part: str = "", message: str = "", code: str = "", times: int = 1
    ) -> None:
        for _ in range(times):
            self._meter(job, part).record_error(record, message, code)

    def set(self, job: str, variables: Mapping[str, object]) -> None:
        self._jobs[job].set(variables)

    def checkpoint(self, job: str, variables: Mapping[str, object], part: str = "") -> None:
        self._meter(job, part).checkpoint(variables)

    def message(self, job: str, value: str) -> None:
        self._jobs[job].message = value

    def size(self, job: str, value: int) -> None:
        self._jobs[job].size = value

    def name(self, job: str, value: str) -> None:
        self._jobs[job].name = value

    def invoker(self, job: str, value: str) -> None:
        self._jobs[job].invoker = value

    def finish(self, job: str, **results: Any) -> None:
        self._jobs[job].finish(**results)

    def fail(self, job: str, message: str, code: str = "UNKNOWN") -> None:
        self._jobs[job].fail(message, code_pb2.Code.Value(code))

    def leave(self, job: str, how: str, message: str = "") -> None:
        try:
            with self._jobs[job] as left:
                if how == "error":
                    raise RuntimeError(message)
                if how == "cancelled":
                    left.raise_if_cancelled()
        except (RuntimeError, headway.JobCancelled):
            pass

    def flush(self, job: str, timeout: float) -> bool:
        return self._jobs[job].flush(timeout)

    def get(self, job: str, name: str) -> object:
        return self._jobs[job].get(name)

    def wait_cancelled(self, job: str, timeout: float) -> dict[str, object] | None:
        found = self._jobs[job]
        if not found.cancelled.wait(timeout):
            return None
        try:
            found.raise_if_cancelled()
        except headway.JobCancelled as cancellation:
            return {
                "reason": cancellation.reason,
                "deadline": cancellation.deadline.isoformat() if cancellation.deadline else None,
            }
        return None

    def wait_stopped(self, job: str, timeout: float) -> dict[str, object] | None:
        found = self._jobs[job]
        end = time.monotonic() + timeout
        while found.stopped is None and time.monotonic() < end:
            time.sleep(0.005)
        return None if found.stopped is None else {"reason": found.stopped.reason}

    def cancel(
        self, of: str, session: str | None = None, reason: str = "", grace: float | None = None
    ) -> dict[str, object]:
        return state(self.client.cancel(session, of, reason=reason, grace=grace))

    def clear(self, of: str, session: str | None = None) -> None:
        self.client.clear(session, of)

    def read(self, of: str, session: str | None = None) -> dict[str, object]:
        return state(self.client.get(session, of))

    def list(self, session: str | None = None, page_size: int = 0, **filters: Any) -> list[dict[str, object]]:
        return [state(job) for job in self.client.list(session, page_size=page_size, **filters)]

    def results(self, of: str, session: str | None = None) -> object:
        return self.client.results(session, of)

    def variables(self, of: str, session: str | None = None, names: tuple[str, ...] = ()) -> object:
        return self.client.variables(session, of, names)

    def record_errors(self, of: str, session: str | None = None) -> dict[str, object]:
        listed = self.client.record_errors(session, of)
        first, last = (
            [{"record": error.record, "code": error.code, "message": error.message} for error in errors]
            for errors in (listed.first, listed.last)
        )
        return {"first": first, "last": last, "total": listed.total}

    def watch(self, of: str, timeout: float, session: str | None = None) -> object:
        jobs = self.client.watch(session, of, timeout=timeout)
        return [[job.revision, status(job), job.progress] for job in jobs]

    def wait(self, of: str, timeout: float, session: str | None = None) -> dict[str, object]:
        *_, last = self.client.watch(session, of, timeout=timeout)
        return state(last)

    def flush_spool(self) -> dict[str, int]:
        outcomes = dict.fromkeys(Outcome, 0)
        with open_channel(self.client.target, retry=False) as channel:
            for _, spool_file in spool.claims(self.client.target):
                outcomes[Outcome.WAITING if spool_file is None else deliver(spool_file, channel)[0]] += 1
        return {str(outcome): count for outcome, count in outcomes.items()}

    def _keep(self, name: str, job: headway.Job) -> dict[str, object]:
        self._jobs[name] = job
        return self.view(name)

    def _meter(self, job: str, part: str) -> headway.Meter:
        return self._jobs[job].part(part) if part else self._jobs[job]


def answer(driver: Driver, request: dict[str, Any]) -> dict[str, object]:
    operation: Callable[..., object] = getattr(driver, request.pop("op"))
    number = request.pop("id")
    try:
        return {"id": number, "value": operation(**request)}
    except headway.HeadwayError as error:
        about = {"code": error.code.name, "reason": error.reason, "message": error.message}
        fields = [field for field, _ in error.fields]
        return {"id": number, "error": {**about, "fields": fields, "retry_after": error.retry_after}}
    except TimeoutError as error:
        about = {"code": grpc.StatusCode.DEADLINE_EXCEEDED.name, "reason": "", "message": str(error)}
        return {"id": number, "error": {**about, "fields": []}}


def main() -> None:
    driver = Driver()
    for line in sys.stdin:
        print(json.dumps(answer(driver, json.loads(line))), flush=True)
    driver.close()


if __name__ == "__main__":
    main()
