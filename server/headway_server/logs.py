"""Notices on standard error: one line each, for people or as JSON."""

import json
import logging
import sys
import time
import traceback


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = f"headway: {_one_line(record.getMessage())}"
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = traceback.extract_tb(error.__traceback__)
            where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
            line += f": {type(error).__name__}: {_one_line(str(error))}{where}"
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
    """gRPC quotes what callers sent, tokens among it; that it refused something is all that the log may hold."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] == "grpc":
            record.msg, record.args, record.exc_info = "gRPC refused a malformed call", (), None
        return True


def _one_line(text: str) -> str:
    return " ".join(text.split())


def configure(form: str) -> None:
    """Send all notices of this process to standard error, as `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_GrpcFilter())
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("headway_server").setLevel(logging.INFO)
    # It warns of every caller that does not speak HTTP well, of which there can be any number.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
