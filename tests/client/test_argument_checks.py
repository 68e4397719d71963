"""Mistakes in a call are errors of that call, and say what was probably meant."""

from collections.abc import Callable
from typing import Any

import pytest

import headway
from headway import aio
from headway.v1 import job_pb2
from tests.support.server import ServerProcess

# What a type checker refuses is tried through this.
Untyped = Callable[[Any], object]

CALLS: list[tuple[Untyped, str]] = [
    (lambda hw: hw.job("s", "x", total=3), "job() has no keyword argument 'total': did you mean size=?"),
    (lambda hw: hw.job("s", "x", units="rows"), "job() has no keyword argument 'units': did you mean unit=?"),
    (lambda hw: hw.job(name="x", desc="y"), "job() has no keyword argument 'desc': did you mean name=?"),
    (lambda hw: hw.job(name="x", colour="red"), "job() has no keyword argument 'colour': it has "),
    (lambda hw: hw.new("s", "x", total=3), "new() has no keyword argument 'total': did you mean size=?"),
    # Not when the first job is asked for, which may be never.
    (lambda hw: hw.list(status="RUNNING"), "list() has no keyword argument 'status': did you mean statuses=?"),
    (lambda hw: hw.list(label={"a": "b"}), "list() has no keyword argument 'label': did you mean labels=?"),
    (lambda hw: hw.watch(None, "0", after=3), "watch() has no keyword argument 'after'"),
    (lambda hw: hw.fetch(None, id="0"), "fetch() has no keyword argument 'id': did you mean job_id=?"),
    (lambda hw: hw.cancel(None, "0", grace_period=3), "cancel() has no keyword argument 'grace_period'"),
]


@pytest.mark.parametrize("kind", [headway, aio])
@pytest.mark.parametrize(("call", "message"), CALLS)
def test_an_unknown_argument_is_refused_with_a_suggestion(kind: Any, call: Untyped, message: str) -> None:
    # Nobody answers there, nor is asked.
    hw = kind.connect("127.0.0.1:1", session="s", exit_timeout=0)
    with pytest.raises(TypeError) as caught:
        call(hw)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("kind", [headway, aio])
def test_connect_refuses_what_it_does_not_know(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"connect\(\) has no keyword argument 'server': did you mean target=\?"):
        kind.connect(server="127.0.0.1:1")


def test_what_a_loop_is_called_with(hw: headway.Client) -> None:
    untyped: Any = hw.job()
    for name, hint in (("total", "set job.size"), ("desc", "set job.name"), ("canceable", "did you mean cancellable=")):
        with pytest.raises(TypeError, match=f"track\\(\\) has no keyword argument '{name}': {hint}"):
            untyped.track([1], **{name: 3})
        with pytest.raises(TypeError, match=name):
            untyped.part("p").track([1], **{name: 3})


@pytest.mark.parametrize("kind", [headway, aio])
@pytest.mark.parametrize("method", ["job", "new"])
def test_a_name_is_not_taken_for_a_session(
    server: ServerProcess, session: str, monkeypatch: pytest.MonkeyPatch, kind: Any, method: str
) -> None:
    monkeypatch.setenv("HEADWAY_SESSION", session)
    hw = kind.connect(server.address)
    with pytest.raises(TypeError, match=rf"write {method}\(session, name\), {method}\(name=…\) in the session"):
        getattr(hw, method)("Import of the day", size=3)


def test_the_ways_to_give_a_session_and_a_name(server: ServerProcess, session: str) -> None:
    with headway.connect(server.address, session=session) as hw:
        jobs = [hw.job(session, "a"), hw.job(None, "a"), hw.job(session, name="a"), hw.job(name="a", session=session)]
        jobs += [hw.new(session, "a"), hw.new(session, name="a"), hw.job(name="a")]
        assert {(job.session, job.name) for job in jobs} == {(session, "a")}
        assert hw.job(session=session).name == ""


def test_statuses_are_one_enum(hw: headway.Client) -> None:
    with hw.job(name="done"):
        pass
    job = hw.job(name="running")
    for wanted in ("RUNNING", headway.Status.RUNNING, ["RUNNING"], (headway.Status.RUNNING, "LOST")):
        (listed,) = hw.list(statuses=wanted)
        assert listed.status == job.status == headway.Status.RUNNING == "RUNNING"
        assert headway.Status(listed.status) is job.status
    assert hw.get(None, job.id).status != headway.Status.COMPLETED
    with pytest.raises(ValueError, match="DONE"):
        list(hw.list(statuses="DONE"))


@pytest.mark.parametrize("status", list(headway.Status))
def test_a_status_has_a_name_and_a_number(status: headway.Status) -> None:
    number = job_pb2.JobStatus.Value(f"JOB_STATUS_{status}")
    assert headway.Status(number) is headway.Status(f"JOB_STATUS_{status}") is headway.Status(str(status)) is status
    assert number == status
    assert {status} == {str(status)}
    assert [other for other in headway.Status if other == number] == [status]
