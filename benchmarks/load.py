"""A load generator in C (h2load of nghttp2) that sends prepared gRPC messages, so that its own cost hides nothing."""

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MISSING = "h2load is not installed (Debian: apt-get install nghttp2-client)"

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def available() -> bool:
    return shutil.which("h2load") is not None


@dataclass(frozen=True, slots=True)
class Load:
    """Calls whose body is always the same: one message, or for a stream several."""

    body: Path

    @classmethod
    def of(cls, folder: Path, name: str, messages: Iterable[bytes]) -> "Load":
        body = folder / f"{name}.grpc"
        body.write_bytes(b"".join(b"\0" + struct.pack(">I", len(message)) + message for message in messages))
        return cls(body)

    def run(self, address: str, path: str, calls: int, in_flight: int) -> float:
        """Makes so many calls over one connection, so many at a time; the seconds that took. RuntimeError if one
        failed."""
        command = ["h2load", "-n", str(calls), "-c", "1", "-m", str(in_flight), "-w", "24", "-W", "24"]
        command += ["-d", str(self.body), "-H", "content-type: application/grpc", "-H", "te: trailers"]
        with tempfile.TemporaryFile("w+") as log:
            subprocess.run([*command, f"http://{address}{path}"], stdout=log, stderr=subprocess.STDOUT, check=True)
            log.seek(0)
            text = log.read()
        succeeded = re.search(r"(\d+) 2xx", text)
        took = re.search(r"finished in ([\d.]+)(us|ms|s)", text)
        if took is None or succeeded is None or int(succeeded[1]) != calls:
            raise RuntimeError(f"h2load {path}: {text}")
        return float(took[1]) * _UNITS[took[2]]
