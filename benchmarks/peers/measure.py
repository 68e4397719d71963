"""How many reports a second get through, from one process and from several that start together."""

import multiprocessing
import os
import time
from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import dataclass
from enum import Enum, auto
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Protocol, Self

PROCESSES = 4
SECONDS = 0.6
"""How long each measurement goes on."""
WARM_UP = 0.15
JOBS = 100
"""Those that each process reports, in turn, so that no peer has to write to one place alone."""
PEER_TIMEOUT = 60.0
"""Seconds until a process counts as stuck."""


class Missing(Exception):
    """What a peer needs is not here: says what, and how to get it."""


class Failed(Exception):
    """A process could not report, or the peer does not have what it was told."""


class Teller(ABC):
    """A process's connection to a peer."""

    told = 0
    """Reports so far."""

    @abstractmethod
    def tell(self, reports: int) -> None:
        """Tells so many, each with a progress that none before it had, and counts them."""

    def settle(self) -> None:
        """Returns once the peer has all that it was told; at once where each report has its answer."""
        return

    @abstractmethod
    def stored(self) -> int:
        """What the peer says was told last, as `told` counts."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection."""


class OneByOne(Teller):
    """Makes a call of each report."""

    def tell(self, reports: int) -> None:
        for progress in range(self.told + 1, self.told + reports + 1):
            self.report(progress)
        self.told += reports

    @abstractmethod
    def report(self, progress: int) -> None:
        """Tells that so much is done, of the job whose turn it is."""


class Way(Protocol):
    """A way of telling progress, as it is handed to the processes that use it."""

    @property
    def chunk(self) -> int:
        """Reports between two looks at the clock."""

    def open(self, number: int) -> Teller:
        """Connects the process of this number, and makes the jobs that it reports."""


class Server(ABC):
    """What a peer's processes talk to. It is made to rest while others are measured."""

    @abstractmethod
    def rest(self) -> None:
        """Costs no CPU from now on."""

    @abstractmethod
    def wake(self) -> None:
        """Serves again."""


class Role(Enum):
    SUBJECT = auto()
    """What the peers are compared with."""
    OURS = auto()
    """Another way to Headway."""
    PEER = auto()


@dataclass(frozen=True, slots=True)
class Peer:
    """A way of telling progress. The goals are by what factor Headway's stream shall exceed it, from one process and
    from several."""

    name: str
    way: Way
    server: Server
    durable: bool = False
    role: Role = Role.PEER
    goals: tuple[float | None, float | None] = (None, None)

    @property
    def title(self) -> str:
        """With a mark if what it is told is on the disk before it counts."""
        return f"{self.name} *" if self.durable else self.name

    def rates(self) -> tuple[float, float]:
        """Reports a second: of one process, of several. Failed if not all of them arrived."""
        self.server.wake()
        try:
            with _Team(self.way) as team:
                return team.rate(1), team.rate(PROCESSES)
        finally:
            self.server.rest()


class _Team:
    """Processes that are connected, and wait to be told how many of them shall report."""

    def __init__(self, way: Way) -> None:
        context = multiprocessing.get_context("spawn")
        # Those that wait for it find it by name, as long as it is kept here.
        self._barrier = context.Barrier(PROCESSES)
        self._pipes, ends = zip(*(context.Pipe() for _ in range(PROCESSES)), strict=True)
        self._processes = [
            context.Process(target=_member, args=(way, number, self._barrier, end), daemon=True)
            for number, end in enumerate(ends)
        ]

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        try:
            for pipe in self._pipes:
                _answer(pipe)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                for pipe in self._pipes:
                    pipe.send(0)
                for pipe in self._pipes:
                    _answer(pipe)
        finally:
            self._end()

    def rate(self, processes: int) -> float:
        for pipe in self._pipes[:processes]:
            pipe.send(processes)
        return sum([_answer(pipe) for pipe in self._pipes[:processes]])

    def _end(self) -> None:
        for process in self._processes:
            process.join(0.5)
            process.kill()
            process.join()


def _answer(pipe: "Connection[int, float | str]") -> float:
    try:
        answer = pipe.recv() if pipe.poll(PEER_TIMEOUT) else "does not answer"
    except EOFError:
        answer = "ended without a word"
    if isinstance(answer, str):
        raise Failed(answer)
    return answer


def _member(way: Way, number: int, barrier: Barrier, pipe: "Connection[float | str, int]") -> None:
    try:
        with closing(way.open(number)) as teller:
            _window(teller, way.chunk, WARM_UP)
            pipe.send(0.0)
            while processes := pipe.recv():
                if processes > 1:
                    barrier.wait(PEER_TIMEOUT)
                pipe.send(_window(teller, way.chunk, SECONDS))
            if (stored := teller.stored()) != teller.told:
                raise Failed(f"has {stored:,} of {teller.told:,} reports")
        pipe.send(0.0)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}".partition("\n")[0])
    # At once: whatever an interpreter takes apart at its end would disturb the next to be measured.
    os._exit(0)


def _window(teller: Teller, chunk: int, seconds: float) -> float:
    """Reports a second, all of them at the peer."""
    before = teller.told
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        teller.tell(chunk)
    teller.settle()
    return (teller.told - before) / (time.perf_counter() - began)
