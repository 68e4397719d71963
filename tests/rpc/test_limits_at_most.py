"""The most that an operator can set each limit to: every engine can still store it, and filter by it."""

import dataclasses
from collections.abc import Iterator

import pytest

from headway_server.domain.limits import Limits
from tests.conftest import ENGINES, empty_database
from tests.support.app import RunningApp
from tests.support.caller import Caller

WIDE = "\U0001f600"
"""A character of four bytes."""


@pytest.fixture(scope="module", params=ENGINES)
def widest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    limits = Limits(**{item.name: item.metadata["most"] for item in dataclasses.fields(Limits)})
    with RunningApp(empty_database(request.param, request, tmp_path_factory.mktemp("most")), limits=limits) as app:
        yield app


def test_the_longest_texts(widest: RunningApp, session: str) -> None:
    limits = widest.app.settings.limits
    caller = Caller(widest, session)
    labels = {f"{n:03}" + "k" * (limits.label_key_length - 3): WIDE * limits.label_value_length for n in range(3)}
    name, invoker = WIDE * limits.name_length, WIDE * limits.invoker_length
    job = caller.create(name=name, invoker=invoker, unit=WIDE * limits.unit_length, labels=labels)
    key = WIDE * limits.key_length
    assert caller.create(key=key).id == caller.create(key=key).id
    part = WIDE * limits.part_length
    caller.report(job.id, part=part, progress=1, counters={part: 1}, message=WIDE * limits.message_length)
    assert [found.id for found in caller.list(page_size=9, labels=labels, name=name, invoker=invoker).jobs] == [job.id]


def test_as_many_labels_as_can_be(widest: RunningApp, session: str) -> None:
    caller = Caller(widest, session)
    labels = {f"label-{n}": f"value-{n}" for n in range(widest.app.settings.limits.labels)}
    job = caller.create(labels=labels)
    caller.create(labels={**labels, "label-0": "another"})
    assert [found.id for found in caller.list_some(page_size=9, labels=labels).jobs] == [job.id]


def test_the_longest_session_id(widest: RunningApp, session: str) -> None:
    caller = Caller(widest, session.ljust(widest.app.settings.limits.session_id_bytes, "x"))
    job = caller.create()
    assert [found.id for found in caller.list(page_size=widest.app.settings.limits.page_size).jobs] == [job.id]
