"""The proxies of examples/proxies, run on free ports in front of running servers."""

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import until

EXAMPLES = Path(__file__).parents[2] / "examples" / "proxies"

FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy."""

    grpc: str
    http: str


def find(name: str) -> str | None:
    """The program, or None if it is not installed."""
    return shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(
    name: str, folder: Path, grpc: Sequence[str], http: Sequence[str], *, timeout: str = "60s"
) -> Iterator[Proxy]:
    """The proxy in front of two servers, with its ports replaced, and its timeouts of 60 s by another one."""
    proxy = Proxy(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    replaced = {
        "127.0.0.1:50050": proxy.grpc,
        "127.0.0.1:8081": proxy.http,
        "127.0.0.1:50051": grpc[0],
        "127.0.0.1:50052": grpc[1],
        "127.0.0.1:8080": http[0],
        "127.0.0.1:8082": http[1],
    }
    text = (EXAMPLES / FILES[name]).read_text()
    text = re.sub("|".join(map(re.escape, replaced)), lambda match: replaced[match[0]], text)
    text = re.sub(r"\b60s\b(?=\n)", timeout, text)
    if name == "nginx":
        text = f"daemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.log;\n{text}"
        paths = "".join(
            f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = text.replace("http {\n", f"http {{\n    access_log off;\n    proxy_read_timeout {timeout};\n{paths}", 1)
    file = folder / FILES[name]
    file.write_text(text)
    program = find(name)
    assert program is not None
    command = [program, "-f", str(file)] if name == "haproxy" else [program, "-c", str(file), "-p", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(proxy.grpc) and answers(proxy.http))
        yield proxy
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)
