"""RQ's `job.meta` and `save_meta()`, as its documentation shows progress, with its defaults: pickled meta, Redis in
memory."""

from dataclasses import dataclass

from redis import Redis as Client
from rq.job import Job

from benchmarks.peers.measure import JOBS, OneByOne, Peer, Teller, Way
from benchmarks.peers.servers import Redis, Servers


class Meta(OneByOne):
    def __init__(self, port: int) -> None:
        self._client = Client(port=port)
        self._jobs = [Job.create("os.getpid", connection=self._client) for _ in range(JOBS)]
        for job in self._jobs:
            job.save()

    def report(self, progress: int) -> None:
        job = self._jobs[progress % JOBS]
        job.meta["progress"] = progress
        job.save_meta()

    def stored(self) -> int:
        meta = Job.fetch(self._jobs[self.told % JOBS].id, connection=self._client).meta
        return int(meta["progress"])

    def close(self) -> None:
        self._client.delete(*[job.key for job in self._jobs])
        self._client.close()


@dataclass(frozen=True, slots=True)
class By(Way):
    port: int
    chunk: int = 100

    def open(self, number: int) -> Teller:
        return Meta(self.port)


def save_meta(servers: Servers) -> Peer:
    redis = servers.of(Redis)
    return Peer("RQ save_meta(), Redis", By(redis.port), redis)


PEERS = (save_meta,)
