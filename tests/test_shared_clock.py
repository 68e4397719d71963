"""Servers that share a database agree on the time, whatever is done to the database's clock."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from headway_server.domain.limits import MICROSECONDS
from headway_server.domain.shared_clock import (
    ALONE_AFTER,
    JUMP_MIN,
    SHRINK_DIVISOR,
    Correction,
    SharedClock,
    correction_at_start,
)

SECOND = MICROSECONDS
DAY = 86_400 * SECOND

JUMPS = st.integers(-DAY, DAY).filter(lambda jump: abs(jump) > 2 * JUMP_MIN)


@dataclass
class World:
    """A database whose clock can be set, and servers that look at it once a second."""

    real: int = 1_800_000_000 * SECOND
    database_offset: int = 0
    kept: Correction = field(default_factory=Correction)
    servers: list[SharedClock] = field(default_factory=list)

    @property
    def database_time(self) -> int:
        return self.real + self.database_offset

    def start(self, noted: int) -> SharedClock:
        self.kept = correction_at_start(self.kept, self.database_time, noted)
        now = self.database_time + self.kept.at(self.database_time)
        server = SharedClock(now, lambda: self.real, self.real)
        self.servers.append(server)
        return server

    def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            for server in self.servers:
                self.real += SECOND // len(self.servers)
                self.kept = server.follow(self.database_time, self.kept, self.real) or self.kept


@given(jumps=st.lists(JUMPS, min_size=1, max_size=4))
def test_no_jump_of_the_databases_clock_is_seen_by_any_server(jumps: list[int]) -> None:
    world = World()
    first = world.start(noted=0)
    world.start(noted=first.now())
    for jump in jumps:
        before, real = first.now(), world.real
        world.database_offset += jump
        world.pass_seconds(20)
        passed = world.real - real
        assert abs(first.now() - before - passed) <= passed // SHRINK_DIVISOR + SECOND // 10
        times = [server.now() for server in world.servers]
        assert max(times) - min(times) <= SECOND // 10
        # One that starts after the jump agrees with those that were there before.
        world.start(noted=first.now())


def test_the_databases_time_is_approached_slowly() -> None:
    world = World()
    server = world.start(noted=0)
    world.database_offset += 60 * SECOND
    world.pass_seconds(5)
    assert abs(server.now() - world.real) < SECOND
    world.pass_seconds(60 * SHRINK_DIVISOR + 60)
    assert abs(server.now() - world.database_time) < SECOND


@given(jump=JUMPS, away=st.integers(2 * ALONE_AFTER, 30 * DAY))
def test_a_server_that_starts_alone_takes_the_databases_time(jump: int, away: int) -> None:
    world = World()
    noted = world.start(noted=0).now()
    world.database_offset += jump
    world.pass_seconds(2)
    world.servers.clear()
    world.real += away
    started = world.start(noted)
    assert started.now() == world.database_time


@given(before=st.integers(0, 60 * SECOND), after=st.integers(0, 60 * SECOND))
def test_a_pause_while_the_database_is_asked_is_no_jump_of_its_clock(before: int, after: int) -> None:
    world = World()
    server = world.start(noted=0)
    asked_at = world.real
    world.real += before
    answer = world.database_time
    world.real += after
    assert server.follow(answer, world.kept, asked_at) is None
    assert server.now() == world.database_time


def test_a_start_that_takes_long_is_no_jump_either() -> None:
    world = World()
    read_at, now = world.real, world.database_time
    world.real += 30 * SECOND
    server = SharedClock(now, lambda: world.real, read_at)
    assert server.now() == world.database_time


@given(steps=st.lists(st.tuples(st.integers(0, 5 * SECOND), st.integers(-3 * JUMP_MIN, 3 * JUMP_MIN)), max_size=20))
def test_the_clock_never_runs_backwards(steps: list[tuple[int, int]]) -> None:
    world = World()
    server = world.start(noted=0)
    before = server.now()
    for passed, jump in steps:
        world.real += passed
        world.database_offset += jump
        world.kept = server.follow(world.database_time, world.kept, world.real) or world.kept
        assert server.now() >= before
        before = server.now()


@given(amount=st.integers(-DAY, DAY), since=st.integers(0, 2**62))
def test_a_correction_is_what_its_text_says(amount: int, since: int) -> None:
    assert Correction.parse(str(Correction(amount, since))) == Correction(amount, since)
    assert Correction.parse(None).at(since) == 0
