"""Programs under `headway run`, with their jobs as the server shows them meanwhile."""

import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import grpc

from headway.v1 import job_pb2
from headway.v1.job_service_pb2 import WatchJobsRequest, WatchJobsResponse
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.cli.run import HEADWAY
from tests.cli.terminal import Terminal
from tests.support.caller import Responses
from tests.support.waiting import until


class State(NamedTuple):
    status: str
    progress: int
    size: int
    unit: str


class Watched:
    """One run, watched from before its start. `feed` is for its standard input, if that is a pipe."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], *, terminal: bool = False) -> None:
        self.states: list[State] = []
        """What the server has sent of the job, each newer than the one before."""
        self.output = b""
        self._channel = grpc.insecure_channel(environment["HEADWAY_TARGET"])
        request = WatchJobsRequest(session_id=environment["HEADWAY_SESSION"])
        self._watch: Responses[WatchJobsResponse] = JobServiceStub(self._channel).WatchJobs(request)
        self._watching = threading.Thread(target=self._collect)
        self._watching.start()
        words = [*HEADWAY, "run", "--", *command]
        read, self._feed = os.pipe()
        self._terminal = Terminal(words, environment, stdin=read) if terminal else None
        self.process = (
            self._terminal.process
            if self._terminal
            else subprocess.Popen(words, env=environment, stdin=read, stdout=-1, stderr=subprocess.STDOUT)
        )
        os.close(read)
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _collect(self) -> None:
        try:
            for response in self._watch:
                job = response.job
                status = job_pb2.JobStatus.Name(job.status).removeprefix("JOB_STATUS_")
                self.states.append(State(status, job.progress, job.size, job.unit))
        except grpc.RpcError:
            # That is how a watch ends.
            pass

    def _read(self) -> None:
        if self._terminal is not None:
            self.output = self._terminal.end()[1]
        else:
            self.output = self.process.communicate()[0]

    def feed(self, data: bytes) -> None:
        os.write(self._feed, data)

    def feed_no_more(self) -> None:
        if self._feed >= 0:
            os.close(self._feed)
            self._feed = -1

    def reaches(self, progress: int, size: int, unit: str) -> None:
        """Waits until the running job says just this."""
        wanted = State("RUNNING", progress, size, unit)
        try:
            until(lambda: wanted in self.states)
        except AssertionError:
            raise AssertionError(f"{wanted} is not among {self.states}") from None

    def end(self) -> State:
        """Waits until the program and its job have ended; how."""
        self.feed_no_more()
        self._reading.join(30)
        assert self.process.wait(30) == 0, self.output
        until(lambda: bool(self.states) and self.states[-1].status != "RUNNING")
        return self.states[-1]

    def on_the_way(self, size: int, unit: str) -> list[int]:
        """The progress between beginning and end, which has to grow."""
        shown = [state.progress for state in self.states if state[:1] + state[2:] == ("RUNNING", size, unit)]
        assert shown == sorted(shown)
        return sorted({progress for progress in shown if progress > 0 and (progress < size or not size)})

    def close(self) -> None:
        self.feed_no_more()
        if self.process.poll() is None:
            self.process.kill()
        self._reading.join()
        if self._terminal is not None:
            self._terminal.__exit__()
        self._watch.cancel()
        self._watching.join()
        self._channel.close()


class _Handler(BaseHTTPRequestHandler):
    body = b""
    amounts: "queue.Queue[int]"

    def do_GET(self) -> None:
        content = self.content()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
        self.end_headers()
        if self.path.endswith("/"):
            self.wfile.write(content)
            return
        sent = 0
        while sent < len(content):
            amount = self.amounts.get()
            self.wfile.write(content[sent : sent + amount])
            sent += amount

    def content(self) -> bytes:
        if not self.path.endswith("/"):
            return self.body
        return b'<a href="../example-1.0-py3-none-any.whl">example-1.0-py3-none-any.whl</a>'

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def slow_server(body: bytes) -> Iterator[tuple[str, Callable[[int], None]]]:
    """The URL of an HTTP server that serves this body, and a function that lets it send so many bytes more.

    Paths that end in / are pages of an index of Python packages.
    """
    amounts = queue.Queue[int]()
    handler = type("Handler", (_Handler,), {"body": body, "amounts": amounts})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", amounts.put
    finally:
        amounts.put(len(body))
        server.shutdown()
        thread.join()
        server.server_close()
