"""Watching a session's jobs: what a watch said, and all that it has to say."""

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from tests.support.caller import Caller, Responses

Seen = tuple[str, int]
"""What a watch of a session said: a job's id and its revision, or 0 for its removal."""


def seen(response: pb.WatchJobsResponse) -> Seen:
    assert response.resume_token
    return (response.removed_job_id, 0) if response.removed_job_id else (response.job.id, response.job.revision)


def large(caller: Caller) -> job_pb2.Job:
    """A job so large that a reader who does not read soon holds nothing more of it in the network."""
    return caller.create(labels={f"{n:063}": "😀" * 256 for n in range(64)})


def take(watch: Responses[pb.WatchJobsResponse], count: int) -> list[pb.WatchJobsResponse]:
    return [next(watch) for _ in range(count)]


def drain(caller: Caller, watch: Responses[pb.WatchJobsResponse], oldest: job_pb2.Job) -> list[pb.WatchJobsResponse]:
    """All that a watch has to say by now, but of the session's oldest job: a report of that one comes last."""
    revision = caller.report(oldest.id, advance=1).revision
    found = []
    for response in watch:
        if response.job.id != oldest.id:
            found.append(response)
        elif response.job.revision >= revision:
            break
    watch.cancel()
    return found
