"""The log: one line for each event on standard error, as text or as JSON.

The server never waits for the reader of the log. Lines go through a bounded queue to one thread. Lines that cannot be
written (the queue is full, the stream is closed, the disk is full) are dropped and counted.
"""

import json
import logging
import os
import queue
import sys
import threading
import time
import traceback
from types import TracebackType

STDOUT, STDERR = 1, 2

LINES_MAX = 1000
"""The most lines that wait to be written."""

LINE_BYTES_MAX = 16 * 1024
"""Longer lines are cut. Together with LINES_MAX this limits the queue to 16 MiB."""

FLUSH_TIMEOUT = 0.5
"""Seconds that the end of the process waits for lines to be written."""


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = f"headway: {one_line(record.getMessage())}"
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = traceback.extract_tb(error.__traceback__)
            where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
            line += f": {type(error).__name__}: {one_line(str(error))}{where}"
        return line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class _GrpcFilter(logging.Filter):
    """Replaces gRPC's log lines, which quote data of callers and may contain tokens."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] == "grpc":
            record.msg, record.args, record.exc_info = "gRPC refused a malformed call", (), None
        return True


class Output:
    """A standard stream with its own writing thread. `put` never waits."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: queue.Queue[bytes] = queue.Queue(LINES_MAX)
        self._idle = threading.Event()
        self._idle.set()
        self._lock = threading.Lock()
        self._started = False
        self.dropped = 0
        """The number of lines that were not written."""

    def put(self, line: str) -> None:
        """Queue the line, with a line feed."""
        data = line.encode(errors="backslashreplace")
        if len(data) > LINE_BYTES_MAX:
            data = data[:LINE_BYTES_MAX].decode(errors="ignore").encode() + "…".encode()
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="headway-log", daemon=True).start()
            try:
                self._idle.clear()
                self._waiting.put_nowait(data + b"\n")
            except queue.Full:
                self.dropped += 1

    def flush(self, timeout: float) -> None:
        """Wait until all lines are written, at most `timeout` seconds."""
        self._idle.wait(timeout)

    def _run(self) -> None:
        while True:
            data = self._waiting.get()
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                with self._lock:
                    self.dropped += 1
            with self._lock:
                if self._waiting.empty():
                    self._idle.set()


_stdout = Output(STDOUT)
_stderr = Output(STDERR)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            _stderr.put(self.format(record))
        except Exception:
            _stderr.put("headway: a log line could not be formatted")


def one_line(text: str) -> str:
    """The text without line breaks."""
    return " ".join(text.split())


def say(text: str) -> None:
    """Write to standard output."""
    _stdout.put(text)


def complain(text: str) -> None:
    """Write one line to standard error, before the process ends with an error."""
    _stderr.put(text)
    _stderr.flush(FLUSH_TIMEOUT)


def dropped() -> int:
    """The number of log lines that could not be written."""
    return _stderr.dropped


def flush() -> None:
    """Wait briefly for lines that are not written yet, before the process ends."""
    for output in (_stdout, _stderr):
        output.flush(FLUSH_TIMEOUT)


def open_standard_streams() -> None:
    """Open closed standard streams as /dev/null. Otherwise a file or socket could get their descriptors, and output to
    standard error would go into it."""
    for descriptor in (0, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # `open` returns the lowest free descriptor, which is the missing one.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)


def configure(form: str) -> None:
    """Send all log lines of this process to standard error, as `text` or `json`."""
    handler = _Handler()
    handler.addFilter(_GrpcFilter())
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("headway_server").setLevel(logging.INFO)
    # uvicorn warns about every caller with invalid HTTP, and there can be any number of them.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    # Python's own reports would go to standard error directly, and wait for its reader.
    logging.captureWarnings(True)
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_thread


def _log_unraisable(what: "sys.UnraisableHookArgs") -> None:
    _log_exception(what.exc_value, what.exc_traceback)


def _log_thread(what: threading.ExceptHookArgs) -> None:
    _log_exception(what.exc_value, what.exc_traceback)


def _log_exception(error: BaseException | None, frames: TracebackType | None) -> None:
    if error is not None:
        logging.getLogger(__name__).error("an error was not handled", exc_info=(type(error), error, frames))
