"""Plays one case with one client."""

import os
import secrets
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self, cast

import grpc
from google.protobuf import duration_pb2, json_format

from clients.conformance.case import Case, Data, Step
from clients.conformance.describe import state
from clients.conformance.drivers import Driver, DriverError
from clients.conformance.http_tap import HttpTap
from clients.conformance.languages import LANGUAGES, Language
from clients.conformance.patterns import difference
from clients.conformance.tap import GrpcTap, Loop
from headway.errors import NotFoundError, from_rpc_error
from headway.v1 import job_service_pb2 as rpc
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.server import ServerProcess

ANSWER_TIMEOUT = 30.0
"""Bounds the wait for any answer, in seconds."""

SEEN_WITHIN = 10.0
"""Bounds the wait for a step `see`, in seconds."""

REFERENCE = "python"
"""The worker with this name is the Python client's, for every language."""


class CaseFailed(AssertionError):
    """The case failed."""


class Shared:
    """What the cases of a run share: the loop of the taps, and a server that no case stops."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.loop = self._stack.enter_context(Loop())
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="headway-")))
        # Few counters, so that a case reaches the limit with few.
        self.server = self._stack.enter_context(ServerProcess(folder, "--max-counters", "8"))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def play(case: Case, language: Language, shared: Shared) -> None:
    """Plays the case. CaseFailed says what went wrong."""
    with tempfile.TemporaryDirectory(prefix="headway-") as folder, ExitStack() as stack:
        scene = _Scene(case, language, shared, Path(folder), stack)
        for number, step in enumerate(case.steps, 1):
            try:
                scene.play(step)
            except (CaseFailed, DriverError) as fault:
                raise CaseFailed(f"step {number}, {step.verb}: {fault}") from None
        scene.end()


class _Scene:
    """The server, tap and drivers of a case."""

    def __init__(self, case: Case, language: Language, shared: Shared, folder: Path, stack: ExitStack) -> None:
        self._language = language
        self._folder = folder
        self._session = f"session-{secrets.token_hex(8)}"
        self._jobs: dict[str, str] = {}
        self._drivers: dict[str, Driver] = {}
        self._later: dict[str, tuple[Driver, int, float, Step]] = {}
        self._tap: GrpcTap | HttpTap | None = None
        http = language.transport == "http"
        if case.direct:
            self._server = ServerProcess(folder)
            stack.callback(self._server.kill)
            self._server.start()
            self._address = f"http://{self._server.http_address}" if http else self._server.address
        else:
            self._server = shared.server
            tap: GrpcTap | HttpTap = (
                HttpTap(shared.loop, self._server.http_address) if http else GrpcTap(shared.loop, self._server.address)
            )
            stack.enter_context(tap)
            self._tap = tap
            self._address = tap.address
        stack.callback(self._kill_all)

    # Steps.

    def play(self, step: Step) -> None:
        match step.verb:
            case "server":
                self._harm(str(step.arguments))
            case "tap":
                self._set_tap(_mapping(step.arguments))
            case "pause":
                time.sleep(float(cast("float", step.arguments)))
            case "see":
                self._see(_mapping(self._filled(step.arguments)))
            case "wire":
                self._look_at_wire(step.arguments)
            case "spool":
                self._look_at_spool(step.arguments)
            case "request_cancel":
                self._request_cancel(_mapping(self._filled(step.arguments)))
            case "report":
                self._report(_mapping(self._filled(step.arguments)))
            case "worker":
                self._end(step.worker, kill=step.arguments == "kill")
            case "answered":
                self._answered(*self._later.pop(str(step.arguments)))
            case _:
                self._ask(step)

    def end(self) -> None:
        for name in list(self._drivers):
            self._end(name)
        if self._tap is not None and (fault := self._tap.record.fault()):
            raise CaseFailed(fault)

    def _ask(self, step: Step) -> None:
        driver = self._drivers.get(step.worker) or self._start(step.worker)
        if isinstance(step.arguments, Mapping) and "distinct" in step.arguments:
            self._count_many(step, dict(step.arguments))
            return
        arguments = _mapping(self._filled(step.arguments or {}))
        began = time.monotonic()
        number = driver.send(step.verb, arguments)
        if step.later:
            self._later[step.later] = (driver, number, began, step)
        else:
            self._answered(driver, number, began, step)

    def _count_many(self, step: Step, arguments: dict[str, Data]) -> None:
        """`count` with `distinct` n: n counters, named by its name and a number."""
        for number in range(1, int(cast("int", arguments.pop("distinct"))) + 1):
            self._ask(replace(step, arguments={**arguments, "counter": f"{arguments['counter']}{number}"}))

    def _answered(self, driver: Driver, number: int, began: float, step: Step) -> None:
        bound = step.took.get("at_most") if isinstance(step.took, Mapping) else None
        timeout = bound + 1.0 if isinstance(bound, int | float) else ANSWER_TIMEOUT
        answer, came = driver.answer(number, timeout)
        if "unsupported" in answer:
            raise CaseFailed(f"unsupported: {answer['unsupported']}")
        if step.error is None:
            if "error" in answer:
                raise CaseFailed(f"an error: {answer['error']}")
        elif fault := difference(step.error, answer.get("error")):
            raise CaseFailed(f"the error: {fault}")
        value = answer.get("value")
        if (
            step.verb in ("create", "resume", "fetch")
            and isinstance(value, Mapping)
            and isinstance(step.arguments, Mapping)
        ):
            self._jobs[str(step.arguments.get("job"))] = str(value["id"])
        if step.expects and (fault := difference(self._filled(step.expect), value)):
            raise CaseFailed(fault)
        if step.took is not None and (fault := difference(step.took, came - began)):
            raise CaseFailed(f"seconds: {fault}")

    def _harm(self, how: str) -> None:
        match how:
            case "stop":
                self._server.stop()
            case "kill":
                self._server.kill()
            case "start":
                self._server.start()
            case "freeze" | "thaw":
                self._server.signal(signal.SIGSTOP if how == "freeze" else signal.SIGCONT)
            case _:
                raise CaseFailed(f"there is no such harm: {how}")

    def _set_tap(self, rules: Mapping[str, Data]) -> None:
        assert self._tap is not None
        fresh = type(self._tap.rules)()
        for name, value in rules.items():
            setattr(fresh, name, tuple(value) if isinstance(value, list) else value)
        self._tap.rules = fresh

    def _look_at_wire(self, pattern: Data) -> None:
        assert self._tap is not None
        if pattern == "clear":
            self._tap.record.clear()
        elif fault := difference(pattern, self._tap.record.facts()):
            raise CaseFailed(f"on the wire, {fault}")

    def _look_at_spool(self, pattern: Data) -> None:
        files = [file for file in self._spool.rglob("*.json") if file.is_file()]
        modes = sorted({f"{file.stat().st_mode & 0o777:o}" for file in files})
        if fault := difference(pattern, {"files": len(files), "modes": modes}):
            raise CaseFailed(f"in the spool, {fault}")

    def _request_cancel(self, arguments: Mapping[str, Data]) -> None:
        request = rpc.CancelJobRequest(
            session_id=self._session, job_id=str(arguments["of"]), reason=str(arguments.get("reason", ""))
        )
        if "grace" in arguments:
            request.grace_period.CopyFrom(duration_pb2.Duration(seconds=int(cast("int", arguments["grace"]))))
        self._call(lambda stub: stub.CancelJob(request, timeout=ANSWER_TIMEOUT))

    def _report(self, arguments: Mapping[str, Data]) -> None:
        """Reports as a worker whose clock is so many seconds `ahead`."""
        request = rpc.ReportProgressRequest(
            session_id=self._session,
            job_id=str(arguments["of"]),
            part=str(arguments.get("part", "")),
            sequence=time.time_ns() // 1000 + int(cast("int", arguments["ahead"])) * 1_000_000,
            advance=int(cast("int", arguments["advance"])),
        )
        self._call(lambda stub: stub.ReportProgress(request, timeout=ANSWER_TIMEOUT))

    def _call(self, call: Callable[[JobServiceStub], object]) -> None:
        with grpc.insecure_channel(self._server.address) as channel:
            try:
                call(JobServiceStub(channel))
            except grpc.RpcError as error:
                raise CaseFailed(f"the server: {from_rpc_error(error)}") from None

    # The server's answer, without the client.

    def _see(self, pattern: Mapping[str, Data]) -> None:
        wanted = dict(pattern)
        job_id = str(wanted.pop("of"))
        end = time.monotonic() + float(cast("float", wanted.pop("within", SEEN_WITHIN)))
        extras: set[str] = {name for name in ("results", "variables", "record_errors") if name in wanted}
        with grpc.insecure_channel(self._server.address) as channel:
            stub = JobServiceStub(channel)
            while fault := difference(wanted, self._seen(stub, job_id, extras)):
                if time.monotonic() > end:
                    raise CaseFailed(f"at the server, {fault}")
                time.sleep(0.02)

    def _seen(self, stub: JobServiceStub, job_id: str, extras: set[str]) -> dict[str, object] | None:
        session = self._session
        try:
            seen = state(stub.GetJob(rpc.GetJobRequest(session_id=session, job_id=job_id), timeout=ANSWER_TIMEOUT))
            if "results" in extras:
                results = stub.GetResults(rpc.GetResultsRequest(session_id=session, job_id=job_id))
                seen["results"] = json_format.MessageToDict(results).get("results")
            if "variables" in extras:
                variables = stub.GetVariables(rpc.GetVariablesRequest(session_id=session, job_id=job_id))
                seen["variables"] = json_format.MessageToDict(variables).get("variables", {})
            if "record_errors" in extras:
                listed = stub.ListRecordErrors(rpc.ListRecordErrorsRequest(session_id=session, job_id=job_id))
                seen["record_errors"] = [error.record for error in listed.first]
        except grpc.RpcError as error:
            if isinstance(from_rpc_error(error), NotFoundError):
                return None
            return {"error of the server": str(error)}
        return seen

    # Drivers.

    @property
    def _spool(self) -> Path:
        return self._folder / "spool"

    def _start(self, name: str) -> Driver:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HEADWAY_")}
        environment |= {
            "HEADWAY_TARGET": self._server.address if name == REFERENCE else self._address,
            "HEADWAY_SESSION": self._session,
            "HEADWAY_SPOOL": str(self._spool),
            "HOME": str(self._folder),
        }
        notes = self._folder / f"{name}-{len(list(self._folder.glob(f'{name}-*')))}.notes"
        language = LANGUAGES[REFERENCE] if name == REFERENCE else self._language
        driver = Driver(language.driver, environment, notes)
        self._drivers[name] = driver
        return driver

    def _end(self, name: str, kill: bool = False) -> None:
        driver = self._drivers.pop(name)
        if kill:
            driver.kill()
            return
        if fault := driver.end():
            raise CaseFailed(fault)
        if self._session in driver.notes:
            raise CaseFailed("the session stands in what the client wrote on standard error")

    def _kill_all(self) -> None:
        for driver in self._drivers.values():
            driver.kill()

    def _filled(self, data: Data) -> Data:
        """`$name` is the id of the job with that name. `session` is another session of this case. A mapping with
        `large` is a text of so many bytes, with `deep` so many nested lists."""
        if isinstance(data, str) and data.startswith("$"):
            return self._jobs.get(data[1:], data)
        if isinstance(data, Mapping):
            if set(data) == {"large"}:
                return "x" * int(cast("int", data["large"]))
            if set(data) == {"deep"}:
                return _nested(int(cast("int", data["deep"])))
            return {
                key: f"{self._session}-{value}" if key == "session" else self._filled(value)
                for key, value in data.items()
            }
        if isinstance(data, list):
            return [self._filled(item) for item in data]
        return data


def _nested(levels: int) -> Data:
    nested: Data = 1
    for _ in range(levels):
        nested = [nested]
    return nested


def _mapping(data: Data) -> Mapping[str, Data]:
    assert isinstance(data, Mapping), f"{data!r} is no mapping"
    return data
