"""gearmand's WORK_STATUS, told by a worker of its binary protocol, of jobs in the background, in memory.

Nothing answers a WORK_STATUS: the server is asked with GET_STATUS what it has, either at the end or after each.
"""

import socket
import struct
from dataclasses import dataclass
from typing import Self

from benchmarks.peers.measure import JOBS, Failed, OneByOne, Peer, Teller, Way
from benchmarks.peers.servers import Program, Servers, free_port, listens, program

CAN_DO, WORK_STATUS, WORK_COMPLETE, GRAB_JOB, GET_STATUS, SUBMIT_JOB_BG = 1, 12, 13, 9, 15, 18
JOB_CREATED, JOB_ASSIGN, STATUS_RES = 8, 11, 20
HEADER = struct.Struct(">4sII")


class Gearmand(Program):
    """As it comes, but for the address."""

    def __enter__(self) -> Self:
        binary = program("gearmand", "Debian: apt-get install gearman-job-server")
        self.port = free_port()
        place = ("--listen=127.0.0.1", f"--port={self.port}", f"--log-file={self.folder / 'gearmand.log'}")
        self.launch([binary, *place], lambda: listens(self.port))
        return self


class Worker(OneByOne):
    """Grabs as many jobs as it submits to itself, and tells how far each is."""

    def __init__(self, port: int, number: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")
        function = b"work-%d" % number
        self._send(CAN_DO, function)
        for job in range(JOBS):
            self._send(SUBMIT_JOB_BG, function, b"job-%d" % job, b"")
            self._receive(JOB_CREATED)
        self._handles = [self._grab() for _ in range(JOBS)]

    def _grab(self) -> bytes:
        self._send(GRAB_JOB)
        return self._receive(JOB_ASSIGN)[0]

    def report(self, progress: int) -> None:
        self._send(WORK_STATUS, self._handles[progress % JOBS], b"%d" % progress, b"1000000000")

    def settle(self) -> None:
        if self.stored() != self.told:
            raise Failed("the server has not what it was told")

    def stored(self) -> int:
        return self._progress(self.told)

    def _progress(self, progress: int) -> int:
        """Of the job whose turn it was then."""
        self._send(GET_STATUS, self._handles[progress % JOBS])
        _handle, _known, _running, done, _of = self._receive(STATUS_RES)
        return int(done)

    def close(self) -> None:
        for handle in self._handles:
            self._send(WORK_COMPLETE, handle, b"")
        self._socket.close()
        self._answers.close()

    def _send(self, kind: int, *fields: bytes) -> None:
        data = b"\0".join(fields)
        self._socket.sendall(HEADER.pack(b"\0REQ", kind, len(data)) + data)

    def _receive(self, expected: int) -> list[bytes]:
        _, kind, size = HEADER.unpack(self._answers.read(HEADER.size))
        data: bytes = self._answers.read(size)
        if kind != expected:
            raise Failed(f"gearmand answers with packet {kind}: {data!r}")
        return data.split(b"\0")


class Answered(Worker):
    """Asks after each."""

    def report(self, progress: int) -> None:
        super().report(progress)
        if self._progress(progress) != progress:
            raise Failed("the server has not what it was told")


@dataclass(frozen=True, slots=True)
class By(Way):
    teller: type[Worker]
    port: int
    chunk: int = 100

    def open(self, number: int) -> Teller:
        return self.teller(self.port, number)


def told(servers: Servers) -> Peer:
    gearmand = servers.of(Gearmand)
    return Peer("gearmand WORK_STATUS", By(Worker, gearmand.port), gearmand)


def answered(servers: Servers) -> Peer:
    gearmand = servers.of(Gearmand)
    return Peer("gearmand WORK_STATUS, each asked for", By(Answered, gearmand.port), gearmand)


PEERS = (told, answered)
