"""Redis by redis-py, whose documentation advises hiredis, its parser in C. Progress is a field of the job's hash."""

from dataclasses import dataclass

from redis import Redis as Client
from redis.utils import HIREDIS_AVAILABLE

from benchmarks.peers.measure import JOBS, Missing, OneByOne, Peer, Teller, Way
from benchmarks.peers.servers import DurableRedis, Redis, Servers


class Answered(OneByOne):
    """Each HSET with its answer."""

    def __init__(self, port: int, number: int) -> None:
        self._client = Client(port=port)
        self._keys = [f"job:{number}:{job}" for job in range(JOBS)]

    def report(self, progress: int) -> None:
        self._client.hset(self._keys[progress % JOBS], "progress", progress)

    def stored(self) -> int:
        return int(self._client.hget(self._keys[self.told % JOBS], "progress") or 0)

    def close(self) -> None:
        self._client.delete(*self._keys)
        self._client.close()


class Pipelined(Answered):
    """A hundred HSET in each pipeline, without the transaction that slows it."""

    def tell(self, reports: int) -> None:
        for _ in range(reports // JOBS):
            pipeline = self._client.pipeline(transaction=False)
            for progress in range(self.told + 1, self.told + JOBS + 1):
                pipeline.hset(self._keys[progress % JOBS], "progress", progress)
            pipeline.execute()
            self.told += JOBS


@dataclass(frozen=True, slots=True)
class By(Way):
    teller: type[Answered]
    port: int
    chunk: int

    def open(self, number: int) -> Teller:
        return self.teller(self.port, number)


def with_hiredis(server: Redis) -> Redis:
    """Missing if redis-py has to do without."""
    if not HIREDIS_AVAILABLE:
        raise Missing("redis-py is not at its best without hiredis (make bench installs it)")
    return server


def one_by_one(servers: Servers) -> Peer:
    redis = with_hiredis(servers.of(Redis))
    return Peer("Redis HSET, one by one", By(Answered, redis.port, 100), redis)


def pipelined(servers: Servers) -> Peer:
    redis = with_hiredis(servers.of(Redis))
    return Peer(f"Redis HSET, pipelined by {JOBS}", By(Pipelined, redis.port, 10 * JOBS), redis, goals=(3, 1.2))


def durable(servers: Servers) -> Peer:
    redis = with_hiredis(servers.of(DurableRedis))
    return Peer("Redis HSET, appendfsync always", By(Answered, redis.port, 10), redis, durable=True)


PEERS = (one_by_one, pipelined, durable)
