"""What is kept to be found quickly stays within its number of bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway_server.domain.errors import MemoryLimit
from headway_server.domain.job import Job
from headway_server.domain.limits import Limits
from headway_server.resources.budget import Budget, Share
from headway_server.resources.cache import ENTRY_DIVISOR, ENTRY_OVERHEAD, Cache
from headway_server.rpc import encoded_replies
from headway_server.rpc.call_guard import ANYBODY
from headway_server.rpc.sessions import SESSIONS_BYTES, Sessions
from headway_server.rpc.validation import Checks
from headway_server.service.sealed_tokens import SessionHasher

TOTAL = 64 * 1024


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 2000))))
def test_all_entries_fit_into_the_total(puts: list[tuple[int, int]]) -> None:
    cache: Cache[int, bytes] = Cache(TOTAL)
    for key, size in puts:
        cache.put(key, bytes(size), size)
        kept = [value for key in range(51) if (value := cache.get(key)) is not None]
        assert sum(len(value) + ENTRY_OVERHEAD for value in kept) == cache.used <= TOTAL


def test_the_oldest_go_first() -> None:
    cache: Cache[int, str] = Cache(TOTAL)
    for number in range(1000):
        cache.put(number, "x", 100)
    assert cache.get(999) == "x"
    assert cache.get(0) is None


def test_what_is_large_is_not_kept() -> None:
    cache: Cache[str, str] = Cache(TOTAL)
    cache.put("large", "x", TOTAL // 2)
    assert cache.get("large") is None
    assert cache.used == 0


def test_a_large_job_is_encoded_once_for_all_who_wait_for_it() -> None:
    small, large = Job("session", "0" * 32, name="small"), Job("session", "1" * 32, name="large")
    large.labels = {f"{number:0256}": "x" * 1024 for number in range(200)}
    first, answer = encoded_replies.job(small), encoded_replies.job(large)
    assert len(answer) > encoded_replies.REPLIES_BYTES // ENTRY_DIVISOR
    assert encoded_replies.job(large) is answer
    assert encoded_replies.job(small) is first


def test_sessions_take_no_more_than_their_bytes() -> None:
    sessions = Sessions(SessionHasher(b"k" * 32), Limits())
    for number in range(20_000):
        sessions(f"{number:0250}", ANYBODY, Checks(Limits()))
    assert 0 < sessions._known.used <= SESSIONS_BYTES


def test_a_share_is_given_back() -> None:
    budget = Budget(8000, MemoryLimit)
    with Share(budget, "peer", 100) as share:
        share.add(200)
        share.drop(50)
        assert budget.used == budget.held("peer") == 250
        with pytest.raises(MemoryLimit):
            share.add(8000)
        assert budget.used == 250
    assert budget.used == budget.held("peer") == 0
