"""Pages of a list while its jobs come, go and leave the filter: what stays is found exactly once."""

import pytest

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from tests.support.caller import Caller


def walk(caller: Caller, first: pb.ListJobsResponse, **wanted: object) -> list[str]:
    """The ids on this page and on all that follow."""
    found = [job.id for job in first.jobs]
    token = first.next_page_token
    while token:
        page = caller.list(page_token=token, **wanted)
        found += [job.id for job in page.jobs]
        token = page.next_page_token
    return found


def test_a_page_that_was_read_may_be_cleared_before_the_next(caller: Caller) -> None:
    ids = [caller.create().id for _ in range(6)][::-1]
    first = caller.list(page_size=2)
    for job in first.jobs:
        caller.clear(job.id)
    assert walk(caller, first, page_size=2) == ids


def test_a_token_outlives_all_that_was_left_to_list(caller: Caller) -> None:
    ids = [caller.create().id for _ in range(4)]
    first = caller.list(page_size=2)
    for job_id in ids:
        caller.clear(job_id)
    assert walk(caller, first, page_size=2) == [job.id for job in first.jobs]


def test_a_token_outlives_the_jobs_that_leave_the_filter(caller: Caller) -> None:
    ids = [caller.create().id for _ in range(6)][::-1]
    first = caller.list(page_size=2, statuses=[job_pb2.JOB_STATUS_RUNNING])
    for job in first.jobs:
        caller.finish(job.id)
    assert walk(caller, first, page_size=2, statuses=[job_pb2.JOB_STATUS_RUNNING]) == ids


@pytest.mark.parametrize("count", [2, 4])
def test_the_last_page_has_no_token_though_it_is_full(caller: Caller, count: int) -> None:
    ids = [caller.create().id for _ in range(count)]
    first = caller.list(page_size=2)
    assert len(walk(caller, first, page_size=2)) == len(ids)
    last = caller.list(page_size=count)
    assert last.next_page_token == ""


def test_a_token_can_be_used_again(caller: Caller) -> None:
    """It names a position and nothing that the server keeps."""
    for _ in range(4):
        caller.create()
    token = caller.list(page_size=2).next_page_token
    assert caller.list(page_size=2, page_token=token) == caller.list(page_size=2, page_token=token)


def test_jobs_of_one_moment_are_all_found(caller: Caller) -> None:
    """Many are created in one commit, and so have one create_time."""
    ids = set(caller.create_many(50))
    assert len(ids) == 50
    found = walk(caller, caller.list(page_size=7), page_size=7)
    assert sorted(found) == sorted(ids)
