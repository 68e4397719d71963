"""A real Redis, as the broker of task queues."""

import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis
from redis.exceptions import ConnectionError as NotThere

from tests.support.waiting import until


def find_binary() -> str | None:
    """The path of redis-server, or None if it is not installed."""
    return shutil.which("redis-server")


class RedisServer:
    """A server on a free loopback port that keeps nothing on disk."""

    def __init__(self, binary: str, folder: Path) -> None:
        self._binary = binary
        self._folder = folder
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        flags = {"port": self.port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": self._folder}
        command = [self._binary, *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(timeout=30)

    def _answers(self) -> bool:
        with Redis(port=self.port) as client:
            try:
                return bool(client.ping())
            except NotThere:
                return False
