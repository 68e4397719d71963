"""What headway.celery and headway.rq share, where no worker is needed to see it."""

import logging

import pytest
from celery import Celery

import headway
from headway.celery import track
from headway.integrations.tasks import current, untracked
from headway.rq import Runs


def test_an_unknown_option_is_refused_with_the_one_that_is_meant() -> None:
    misspelt: dict[str, str] = {"sesion": "nightly"}
    with pytest.raises(TypeError, match=r"track has no option 'sesion'. Did you mean 'session'\?"):
        track(Celery("imports"), **misspelt)
    with pytest.raises(TypeError, match=r"'sesion'. Did you mean 'session'\?"):
        Runs(**misspelt)
    with pytest.raises(TypeError, match=r"has no option 'colour'\.$"):
        Runs(**dict.fromkeys(["colour"], "red"))


def test_a_thread_of_no_task_counts_for_the_only_one(caplog: pytest.LogCaptureFixture) -> None:
    first, second = untracked(), untracked()
    assert current(second, {"1": first, "2": second}) is second
    assert current(None, {"1": first}) is first
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "headway"):
        for _ in range(2):
            assert current(None, {"1": first, "2": second}) not in (first, second)
    (record,) = caplog.records
    assert "pass the job to the thread" in record.getMessage()
    assert isinstance(current(None, {}), headway.Job)
