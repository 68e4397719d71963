"""ListJobs: filters against a plain loop, pages that stay right, tokens that cannot be bent; and session "-"."""

import dataclasses
import random
import string
from collections.abc import Callable
from typing import Any

import pytest
from google.rpc import status_pb2

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway_server.domain.limits import Limits
from headway_server.storage import listing, read_pool
from tests.support.app import RunningApp
from tests.support.caller import Caller, seconds
from tests.support.refusals import faults, outcome, refused_with

NAMES = ["", "import", "Import", "import ", "imp", "%", "i_port", "é", "é", "' OR 1=1 --"]
LABELS: list[dict[str, str]] = [{}, {"a": "1"}, {"a": "2"}, {"a": "1", "b": "2"}, {"A": "1"}, {"a": ""}, {"a": "1 "}]
STATUSES = list(job_pb2.JobStatus.values())[1:]


def populate(caller: Caller, count: int, rng: random.Random) -> list[job_pb2.Job]:
    """Jobs of all kinds and states; oldest first."""
    ids = []
    for _ in range(count):
        job = caller.create(
            name=rng.choice(NAMES),
            invoker=rng.choice(NAMES),
            labels=rng.choice(LABELS),
            pending=rng.random() < 0.15,
            heartbeat_timeout=seconds(rng.choice([0, 5])),
            stall_timeout=seconds(rng.choice([0, 5])),
        )
        ids.append(job.id)
        if job.status == job_pb2.JOB_STATUS_PENDING:
            continue
        match rng.randrange(6):
            case 0:
                caller.finish(job.id)
            case 1:
                caller.fail(job.id)
            case 2:
                caller.fail(job.id, code=1)
            case _:
                pass
    caller.app.pass_time(6)
    return [caller.get(job_id) for job_id in ids]


def fits(job: job_pb2.Job, wanted: dict[str, Any]) -> bool:
    """What ListJobs promises, as a plain condition."""
    return (
        (not wanted.get("statuses") or job.status in wanted["statuses"])
        and wanted.get("name", "") in ("", job.name)
        and wanted.get("invoker", "") in ("", job.invoker)
        and all(job.labels.get(key) == text for key, text in wanted.get("labels", {}).items())
        and wanted.get("stalled", job.stalled) == job.stalled
    )


def pages(caller: Caller, page_size: int, **wanted: Any) -> list[job_pb2.Job]:
    """All jobs over all pages."""
    found: list[job_pb2.Job] = []
    token = ""
    while True:
        page = caller.list(page_size=page_size, page_token=token, **wanted)
        assert len(page.jobs) <= page_size
        assert not {job.id for job in page.jobs} & {job.id for job in found}, "a job on two pages"
        found += page.jobs
        token = page.next_page_token
        if not token:
            return found
        assert page.jobs, "an empty page in the middle"


def test_filters_find_what_a_plain_loop_finds(caller: Caller) -> None:
    """Every filter and every mixture of them, newest first, over pages of any size."""
    rng = random.Random(42)
    jobs = populate(caller, 60, rng)
    newest_first = jobs[::-1]
    assert list(caller.list(page_size=1000).jobs) == newest_first
    assert pages(caller, 1) == newest_first
    filters: list[dict[str, Any]] = [{"stalled": True}, {"stalled": False}, *[{"statuses": [s]} for s in STATUSES]]
    filters += [{"name": name} for name in NAMES] + [{"labels": labels} for labels in LABELS]
    for _ in range(40):
        wanted: dict[str, Any] = {}
        if rng.random() < 0.5:
            wanted["statuses"] = rng.sample(STATUSES, rng.randint(1, 4))
        if rng.random() < 0.4:
            wanted["name"] = rng.choice(NAMES)
        if rng.random() < 0.3:
            wanted["invoker"] = rng.choice(NAMES)
        if rng.random() < 0.4:
            wanted["labels"] = rng.choice(LABELS)
        if rng.random() < 0.2:
            wanted["stalled"] = rng.random() < 0.5
        filters.append(wanted)
    hits = 0
    for wanted in filters:
        expected = [job for job in newest_first if fits(job, wanted)]
        assert pages(caller, rng.choice([3, 7, 50]), **wanted) == expected, wanted
        hits += bool(expected)
    assert hits > len(filters) / 3, "most filters found nothing: the test looks at too little"


def test_a_filter_may_name_as_many_labels_as_a_job_may_ever_have(
    app_with: Callable[[Limits], RunningApp], session: str
) -> None:
    """Each engine plans and runs it in good time, and holds the longest values."""
    highest = {
        limit.name: limit.metadata["most"] for limit in dataclasses.fields(Limits) if limit.name.startswith("label")
    }
    limits = Limits(**highest)
    caller = Caller(app_with(limits), session)
    labels = {f"key-{number}": f"value-{number}" for number in range(highest["labels"] - 1)}
    labels["k" * highest["label_key_length"]] = "\U0001f600" * highest["label_value_length"]
    job = caller.create(labels=labels)
    caller.create(labels={**labels, "key-7": "another"})
    assert [found.id for found in caller.list_some(labels=labels).jobs] == [job.id]
    assert not caller.list_some(labels={**labels, "key-998": "another"}).jobs


def test_a_filter_may_name_64_labels(caller: Caller) -> None:
    labels = {f"key{n}": "x" * 256 for n in range(64)}
    job = caller.create(labels=labels)
    caller.create(labels={**labels, "key63": "y"})
    assert [found.id for found in caller.list(labels=labels).jobs] == [job.id]


def test_pages_stay_right_while_jobs_come_and_go(caller: Caller) -> None:
    """What is there throughout appears exactly once, in order, whatever is made, changed and removed between pages."""
    rng = random.Random(3)
    jobs = [caller.create(name=f"{n}").id for n in range(40)]
    staying = jobs[::2]
    leaving = jobs[1::2]
    rng.shuffle(leaving)
    found: list[str] = []
    token = ""
    while True:
        page = caller.list(page_size=3, page_token=token)
        found += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
        caller.create(name="new")
        if leaving:
            caller.clear(leaving.pop())
        caller.update(job_pb2.Job(id=rng.choice(staying), name="changed"))
        caller.report(rng.choice(staying), advance=1)
    assert [job_id for job_id in found if job_id in staying] == staying[::-1]
    assert len(found) == len(set(found))


def test_a_page_goes_on_where_its_last_job_was_removed(caller: Caller) -> None:
    jobs = [caller.create().id for _ in range(6)][::-1]
    page = caller.list(page_size=2)
    caller.clear(page.jobs[-1].id)
    assert [job.id for job in caller.list(page_size=9, page_token=page.next_page_token).jobs] == jobs[2:]


def test_page_size(caller: Caller) -> None:
    """50 unless the caller says otherwise, 1000 at most, and never negative."""
    caller.create_many(51)
    assert len(caller.list().jobs) == 50
    assert len(caller.list(page_size=0).jobs) == 50
    assert len(caller.list(page_size=2**31 - 1).jobs) == 51
    assert len(caller.list(page_size=51).jobs) == 51
    assert caller.list(page_size=51).next_page_token == ""
    for size in (-1, -(2**31)):
        assert faults(caller.list, page_size=size) == {"page_size"}


def test_page_size_is_clamped_to_a_thousand(caller: Caller) -> None:
    caller.create_many(1001)
    page = caller.list(page_size=10**9)
    assert len(page.jobs) == 1000
    assert len(caller.list(page_size=10**9, page_token=page.next_page_token).jobs) == 1


def test_a_page_fits_into_one_message(caller: Caller) -> None:
    """Large jobs make short pages: a caller with gRPC's usual limit of 4 MiB can read them all."""
    labels = {f"{n:063}": "😀" * 256 for n in range(64)}
    jobs = [caller.create(labels=labels).id for _ in range(60)]
    assert [job.id for job in pages(caller, 1000)] == jobs[::-1]


def test_a_filter_that_finds_little_answers_in_time_and_goes_on(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of what was found so far, perhaps nothing, and a token for the rest: however many jobs there are."""
    monkeypatch.setattr(read_pool, "LIST_TIME", 0)
    monkeypatch.setattr(listing, "SCANNED", 8)
    wanted = caller.create(name="wanted", labels={"a": "1", "b": "2"})
    caller.create_many(30, name="other", labels={"a": "1"})
    filters: list[dict[str, Any]] = [{"name": "wanted"}, {"labels": {"b": "2"}}, {"labels": {"a": "1", "b": "2"}}]
    for fields in [*filters, {"name": "absent"}, {"labels": {"absent": "x"}}, {"invoker": "absent"}]:
        found: list[job_pb2.Job] = []
        page = caller.list(**fields)
        pages_seen = 1
        while page.next_page_token:
            assert not found, "the oldest job was not the last"
            page = caller.list(page_token=page.next_page_token, **fields)
            found += page.jobs
            pages_seen += 1
        assert pages_seen >= 4
        assert found == ([wanted] if fields in filters else [])


def test_the_page_size_may_change_between_pages(caller: Caller) -> None:
    jobs = [caller.create().id for _ in range(6)][::-1]
    token = caller.list(page_size=1).next_page_token
    assert [job.id for job in caller.list(page_size=5, page_token=token).jobs] == jobs[1:]


def test_an_empty_session_has_an_empty_list(caller: Caller) -> None:
    assert caller.list() == pb.ListJobsResponse()


@pytest.mark.parametrize(
    "changed",
    [
        {"statuses": [job_pb2.JOB_STATUS_LOST]},
        {"statuses": []},
        {"name": "other"},
        {"name": ""},
        {"invoker": "x"},
        {"labels": {"a": "2"}},
        {"labels": {}},
        {"stalled": False},
    ],
    ids=repr,
)
def test_a_page_token_belongs_to_its_filters(caller: Caller, changed: dict[str, Any]) -> None:
    wanted = {"statuses": [job_pb2.JOB_STATUS_RUNNING], "name": "n", "labels": {"a": "1"}}
    for _ in range(2):
        caller.create(name="n", labels={"a": "1"})
    token = caller.list(page_size=1, **wanted).next_page_token
    assert len(caller.list(page_token=token, **wanted).jobs) == 1
    assert faults(lambda: caller.list(page_token=token, **{**wanted, **changed})) == {"page_token"}


def test_a_page_token_belongs_to_its_session(caller: Caller, stranger: Caller, admin: Caller) -> None:
    for _ in range(2):
        caller.create()
    token = caller.list(page_size=1).next_page_token
    assert faults(lambda: stranger.list(page_token=token)) == {"page_token"}
    assert faults(lambda: admin.list(page_token=token)) == {"page_token"}
    everywhere = admin.list(page_size=1).next_page_token
    assert faults(lambda: caller.list(page_token=everywhere)) == {"page_token"}


def alterations(token: str) -> list[str]:
    """The token with each character changed, and otherwise bent."""
    alphabet = string.ascii_letters + string.digits + "-_"
    bent = [token[:i] + alphabet[(alphabet.index(token[i]) + 1) % 64] + token[i + 1 :] for i in range(len(token))]
    # The last character of base64 has bits that mean nothing: they must be as they were all the same.
    bent += [token[:-1] + character for character in alphabet if character != token[-1]]
    bent += [token[:-1], token[1:], token * 2, token + "=", token + "==", token + " ", " " + token, token + "A"]
    bent += [token.swapcase(), "x", "=", "é", "😀", "\0", "'; DROP TABLE job; --", "A" * 10_000, "e30"]
    return bent


def test_an_altered_page_token_is_refused(caller: Caller) -> None:
    for _ in range(2):
        caller.create()
    token = caller.list(page_size=1).next_page_token
    accepted = [bent for bent in alterations(token) if outcome(caller.list, page_token=bent) == "OK"]
    assert accepted == []
    assert faults(lambda: caller.list(page_token="nonsense")) == {"page_token"}


@pytest.mark.parametrize("numbers", [[0], [7], [99], [-1], [2**31 - 1], [2, 99, 3, -5]], ids=repr)
def test_an_unknown_status_is_refused(caller: Caller, numbers: list[int]) -> None:
    wanted = {f"statuses[{i}]" for i, number in enumerate(numbers) if number not in STATUSES}
    assert faults(lambda: caller.list(statuses=numbers)) == wanted


# Session "-".


def test_all_sessions_are_for_the_admin_alone(caller: Caller) -> None:
    """Every RPC refuses it to an ordinary caller, who learns nothing of whether the job is there."""
    job = caller.create()
    everywhere = Caller(caller.app, "-")
    for name, call in NAMED.items():
        refusal = refused_with("SCOPE_MISSING", call, everywhere, job.id)
        assert refusal.code == "PERMISSION_DENIED", name
        assert refused_with("SCOPE_MISSING", call, everywhere, "0" * 32) == refusal
    for other in (everywhere.create, everywhere.list, lambda: next(everywhere.watch_all())):
        assert refused_with("SCOPE_MISSING", other).code == "PERMISSION_DENIED"
    failures = next(everywhere.stream([everywhere.batch({"job_id": job.id, "progress": 9})])).failures
    assert [failure.status.code for failure in failures] == [7]
    assert caller.get(job.id) == job


def fail_cancelled(caller: Caller, job_id: str) -> object:
    request = pb.FailJobRequest(session_id=caller.session, job_id=job_id, error=status_pb2.Status(code=1))
    return caller.app.stub.FailJob(request, metadata=caller.metadata or None, timeout=10)


NAMED: dict[str, Callable[[Caller, str], object]] = {
    "StartJob": lambda caller, job_id: caller.start(job_id, take_over=True),
    "GetJob": lambda caller, job_id: caller.get(job_id),
    "UpdateJob": lambda caller, job_id: caller.update(job_pb2.Job(id=job_id, name="by the admin")),
    "ReportProgress": lambda caller, job_id: caller.report(job_id, progress=5),
    "SetVariables": lambda caller, job_id: caller.set(job_id, {"a": 1}),
    "GetVariables": lambda caller, job_id: caller.variables(job_id),
    "GetResults": lambda caller, job_id: caller.results(job_id),
    "ListRecordErrors": lambda caller, job_id: caller.errors(job_id),
    "WatchJob": lambda caller, job_id: next(caller.watch(job_id)),
    "CancelJob": lambda caller, job_id: caller.cancel(job_id, "by the admin"),
    "FailJob": fail_cancelled,
    "ClearJob": lambda caller, job_id: caller.clear(job_id),
}
"""What names one job, in an order in which one job can go through all of it (FinishJob ends another)."""


def test_the_admin_names_jobs_by_their_id_alone(caller: Caller, admin: Caller) -> None:
    """In every RPC that names one, and the job's own session sees what was done."""
    job = caller.create()
    for call in NAMED.values():
        call(admin, job.id)
        if call is not NAMED["ClearJob"]:
            assert caller.get(job.id).id == job.id
    refused_with("JOB_NOT_FOUND", lambda: caller.get(job.id))
    for call in NAMED.values():
        refused_with("JOB_NOT_FOUND", call, admin, job.id)
    other = caller.create()
    response = next(admin.stream([admin.batch({"job_id": other.id, "progress": 3}, {"job_id": job.id, "progress": 3})]))
    assert (response.acked, [failure.report for failure in response.failures]) == (1, [1])
    assert caller.get(other.id).progress == 3
    assert admin.finish(other.id).status == job_pb2.JOB_STATUS_COMPLETED
    assert caller.get(other.id).status == job_pb2.JOB_STATUS_COMPLETED


def test_the_admin_lists_and_watches_all_sessions(caller: Caller, stranger: Caller, admin: Caller) -> None:
    mark = caller.session
    ids = [who.create(invoker=mark).id for who in (caller, stranger, caller)]
    assert [job.id for job in pages(admin, 2, invoker=mark)] == ids[::-1]
    assert {job.id for job in caller.list(invoker=mark).jobs} == {ids[0], ids[2]}
    watch = admin.watch_all()
    seen: set[str] = set()
    while not seen >= set(ids):
        seen.add(next(watch).job.id)
    watch.cancel()


def test_an_admin_may_name_a_session_too(caller: Caller, stranger: Caller, admin: Caller) -> None:
    job = caller.create()
    named = Caller(caller.app, caller.session, admin.metadata)
    assert named.get(job.id) == job
    elsewhere = Caller(caller.app, stranger.session, admin.metadata)
    refused_with("JOB_NOT_FOUND", lambda: elsewhere.get(job.id))


def test_no_job_is_created_in_all_sessions(admin: Caller) -> None:
    assert faults(admin.create) == {"session_id"}


def test_an_id_that_two_sessions_have_is_ambiguous(caller: Caller, stranger: Caller, admin: Caller) -> None:
    """The admin is told so and changes neither; with the session it is clear again."""
    job_id = caller.create().id
    stranger.create(job_id=job_id)
    before = caller.get(job_id), stranger.get(job_id)
    for name, call in NAMED.items():
        assert refused_with("JOB_ID_AMBIGUOUS", call, admin, job_id).code == "FAILED_PRECONDITION", name
    (failure,) = next(admin.stream([admin.batch({"job_id": job_id, "progress": 3})])).failures
    assert failure.status.code == 9
    assert (caller.get(job_id), stranger.get(job_id)) == before
    assert Caller(caller.app, caller.session, admin.metadata).report(job_id, progress=1).progress == 1
    stranger.clear(job_id)
    assert admin.get(job_id).progress == 1


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer wrong", "Basic {token}", "{token}", "Bearer {token} x", "Bearer  {token}",
     "Bearer {token}x", "bearer,{token}"],
)  # fmt: skip
def test_a_wrong_token_is_refused(app: RunningApp, session: str, authorization: str) -> None:
    """Everywhere, and not taken for no token."""
    metadata = (("authorization", authorization.format(token=app.app.admin_token)),)
    for call in (Caller(app, session, metadata).create, Caller(app, session, metadata).list):
        assert refused_with("CREDENTIALS_INVALID", call).code == "UNAUTHENTICATED"


def test_a_token_given_twice_is_refused(app: RunningApp, session: str) -> None:
    pair = ("authorization", f"Bearer {app.app.admin_token}")
    assert refused_with("CREDENTIALS_INVALID", Caller(app, session, (pair, pair)).list).code == "UNAUTHENTICATED"


def test_the_token_works_in_any_case_of_the_word_bearer(app: RunningApp) -> None:
    for word in ("Bearer", "bearer", "BEARER"):
        Caller(app, "-", (("authorization", f"{word} {app.app.admin_token}"),)).list(page_size=1)
