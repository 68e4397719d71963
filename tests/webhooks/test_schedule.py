"""When webhooks are sent and tried again, and that none is lost or held up by another."""

from email.utils import formatdate
from itertools import pairwise

import pytest

from headway_server.domain.limits import MICROSECONDS
from headway_server.webhooks.delivery import CLAIM_TIME, RETRIES_IN_FLIGHT_MAX, requested_delay
from tests.support.app import NOON
from tests.support.caller import Caller
from tests.support.receiver import Receiver
from tests.support.waiting import until
from tests.support.webhooks import Start, deliver, delivering, execute, finish_jobs, waiting


def test_a_receiver_that_is_down_for_a_minute_gets_every_ending_once(
    start: Start, receiver: Receiver, session: str
) -> None:
    app = start({"url": receiver.url})
    caller = Caller(app, session)
    job_ids = caller.create_many(20)
    receiver.stop()
    for number, job_id in enumerate(job_ids):
        caller.finish(job_id)
        if number % 5 == 0:
            caller.clear(job_id)
        deliver(app, 3)
    assert receiver.received == []
    receiver.start()
    for _ in range(12):
        deliver(app, 5)
    assert sorted(receiver.events()) == sorted(("dev.headway.job.completed", job_id) for job_id in job_ids)
    assert receiver.times_each() == {1}
    assert waiting(app) == 0


def test_what_was_received_and_not_answered_comes_again_under_its_id(
    start: Start, receiver: Receiver, session: str
) -> None:
    receiver.status = 0
    app = start({"url": receiver.url})
    job_id = Caller(app, session).create().id
    Caller(app, session).finish(job_id)
    deliver(app)
    receiver.status = 200
    deliver(app, 60)
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    assert first.event()["subject"] == job_id
    deliver(app, 4000)
    assert len(receiver.received) == 2


def test_attempts_grow_rarer_until_it_is_given_up(
    start: Start, receiver: Receiver, session: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 503
    app = start({"url": receiver.url}, arguments=("--webhook-lifetime", "1d"))
    caller = Caller(app, session)
    caller.finish(caller.create().id)
    times: list[int] = []
    for minute in range(25 * 60):
        deliver(app, 60)
        if len(receiver.received) > len(times):
            times.append(minute)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    # Half an hour to an hour apart in the end, and not all alike.
    assert max(gaps) <= 61
    assert all(gap >= 29 for gap in gaps[12:])
    assert len(set(gaps[12:])) > 1
    assert 25 < len(times) < 60
    app.run(app.app.webhooks.tidy())
    assert waiting(app) == 0
    about = f"webhooks to http://127.0.0.1:{receiver.port}: "
    assert [record.message.removeprefix(about) for record in caplog.records if record.message.startswith(about)] == [
        "it responded 503; trying again",
        "gave up 1 that could not be delivered in time",
    ]


def test_a_receiver_says_when_it_wants_to_be_asked_again(own_start: Start, receiver: Receiver, session: str) -> None:
    receiver.status, receiver.headers = 503, {"Retry-After": "300"}
    app = own_start({"url": receiver.url})
    caller = Caller(app, session)
    caller.finish(caller.create().id)
    deliver(app)
    caller.finish(caller.create().id)
    deliver(app, 299)
    assert len(receiver.received) == 1
    receiver.status = 200
    deliver(app, 2)
    assert len(receiver.received) == 3


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("0", 0),
        ("300", 300),
        (formatdate(NOON / MICROSECONDS + 300, usegmt=True), 300),
        (formatdate(NOON / MICROSECONDS - 300, usegmt=True), 0),
        ("999999999999999999999", 3600),
        ("-5", 0),
        ("1e9", 0),
        ("²", 0),
        ("soon", 0),
        ("Fri, 99 Foo 99999999999999999999 00:00:00 GMT", 0),
        ("Fri, 01 Jan 99999999999999999999 00:00:00 GMT", 0),
        ("Fri, 01 Jan 0001 00:00:00 +2359", 0),
        ("", 0),
    ],
)
def test_what_retry_after_asks_for(retry_after: str, seconds: int) -> None:
    assert requested_delay(retry_after, NOON) == seconds * MICROSECONDS


def test_a_receiver_that_fails_is_asked_gently_however_many_webhooks_wait(
    own_start: Start, receiver: Receiver, session: str
) -> None:
    receiver.status = 503
    app = own_start({"url": receiver.url})
    caller = Caller(app, session)
    job_ids = caller.create_many(40)
    for job_id in job_ids:
        caller.finish(job_id)
    for _ in range(100):
        deliver(app, 3)
    # Some at first, until it has failed; from then on one at a time, at most half a minute apart.
    assert 10 <= len(receiver.received) <= 8 + 300 / 15 + 5
    receiver.received.clear()
    receiver.status = 200
    deliver(app, 30)
    assert len(receiver.received) >= 20
    deliver(app, 3600)
    assert sorted(receiver.subjects) == sorted(job_ids)


@pytest.mark.parametrize("status", [422, 500, 307])
def test_webhooks_that_a_receiver_refuses_hold_up_no_other(
    start: Start, receiver: Receiver, session: str, status: int
) -> None:
    receiver.disliked, receiver.disliked_status = "poison", status
    app = start({"url": receiver.url})
    caller = Caller(app, session)
    refused = finish_jobs(caller, "poison", 20)
    deliver(app)
    assert sorted(receiver.subjects) == sorted(refused)
    receiver.received.clear()
    taken = finish_jobs(caller, "good", 20)
    deliver(app, 1)
    assert sorted(receiver.subjects) == sorted(taken)
    # Each of them comes again, on its own schedule.
    receiver.received.clear()
    receiver.disliked = ""
    deliver(app, 10)
    assert sorted(receiver.subjects) == sorted(refused)
    assert waiting(app) == 0


def test_a_webhook_that_makes_a_receiver_close_the_connection_holds_up_others_for_seconds(
    own_start: Start, receiver: Receiver, session: str
) -> None:
    receiver.disliked, receiver.disliked_status = "poison", 0
    app = own_start({"url": receiver.url})
    caller = Caller(app, session)
    finish_jobs(caller, "poison", 20)
    taken = finish_jobs(caller, "good", 10)
    for _ in range(8):
        deliver(app, 5)
    assert set(receiver.subjects) >= set(taken)


def test_a_slow_webhook_holds_up_no_other(start: Start, receiver: Receiver, session: str) -> None:
    receiver.held = "slow"
    receiver.free.clear()
    app = start({"url": receiver.url})
    caller = Caller(app, session)
    slow = finish_jobs(caller, "slow", 3)
    with delivering(app):
        until(lambda: len(receiver.received) == len(slow))
        taken = finish_jobs(caller, "good", 30)
        app.clock.forward(1)
        until(lambda: len(receiver.received) == len(slow) + len(taken))
        # And what was taken is written down meanwhile.
        until(lambda: waiting(app) == len(slow))
        receiver.free.set()
    assert sorted(receiver.subjects) == sorted([*slow, *taken])
    assert waiting(app) == 0


def test_what_is_tried_again_leaves_room_for_what_is_new(own_start: Start, receiver: Receiver, session: str) -> None:
    receiver.disliked, receiver.disliked_status = "slow", 422
    app = own_start({"url": receiver.url})
    caller = Caller(app, session)
    finish_jobs(caller, "slow", 20)
    deliver(app)
    receiver.received.clear()
    receiver.disliked, receiver.held = "", "slow"
    receiver.free.clear()
    with delivering(app, 3600):
        until(lambda: len(receiver.received) == RETRIES_IN_FLIGHT_MAX)
        taken = finish_jobs(caller, "good", 30)
        app.clock.forward(1)
        until(lambda: len(receiver.received) == RETRIES_IN_FLIGHT_MAX + len(taken))
        receiver.free.set()
    assert waiting(app) == 0


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_asks_for_a_pause_gets_it_though_it_takes_others(
    own_start: Start, receiver: Receiver, session: str, status: int
) -> None:
    receiver.disliked, receiver.disliked_status = "throttled", status
    receiver.headers = {"Retry-After": "60"}
    app = own_start({"url": receiver.url})
    caller = Caller(app, session)
    finish_jobs(caller, "good", 5)
    finish_jobs(caller, "throttled", 1)
    deliver(app)
    assert len(receiver.received) == 6
    finish_jobs(caller, "good", 1)
    deliver(app, 59)
    assert len(receiver.received) == 6
    receiver.disliked = ""
    deliver(app, 2)
    assert len(receiver.received) == 8


def test_what_a_receiver_took_is_not_sent_again_because_the_database_failed(
    own_start: Start, receiver: Receiver, session: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = own_start({"url": receiver.url})
    caller = Caller(app, session)
    execute(app, "CREATE TRIGGER broken BEFORE DELETE ON notice BEGIN DELETE FROM missing; END")
    (job_id,) = finish_jobs(caller, "Import", 1)
    with delivering(app):
        until(lambda: "the database failed: " in caplog.text)
        # Longer than the claim holds.
        app.clock.forward(CLAIM_TIME / MICROSECONDS + 1)
        execute(app, "DROP TRIGGER broken")
        until(lambda: waiting(app) == 0)
    assert receiver.subjects == [job_id]


def test_a_long_time_without_a_server_costs_no_webhook(start: Start, receiver: Receiver, session: str) -> None:
    receiver.stop()
    app = start({"url": receiver.url})
    (job_id,) = finish_jobs(Caller(app, session), "Import", 1)
    # As if all of it had happened a year ago.
    execute(app, "UPDATE notice SET create_time = create_time - 31536000000000")
    app = start({"url": receiver.url})
    app.run(app.app.webhooks.tidy())
    receiver.start()
    deliver(app, 3600)
    assert receiver.subjects == [job_id]
    (late,) = finish_jobs(Caller(app, session), "Import", 1)
    execute(app, "UPDATE notice SET create_time = create_time - 31536000000000")
    app.run(app.app.webhooks.tidy())
    deliver(app, 3600)
    assert late not in receiver.subjects


def test_what_waits_for_a_receiver_that_is_no_longer_named_waits_until_it_is_named_again(
    start: Start, receiver: Receiver, session: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.stop()
    with Receiver() as other:
        app = start({"url": receiver.url}, {"url": other.url})
        (first,) = finish_jobs(Caller(app, session), "Import", 1)
        deliver(app)
        app = start({"url": other.url})
        (second,) = finish_jobs(Caller(app, session), "Import", 1)
        deliver(app, 3600)
        assert other.subjects == [first, second]
        app = start({"url": receiver.url})
        receiver.start()
        deliver(app, 7200)
        assert receiver.subjects == [first]
        # What nobody names any more is given up when it is too old.
        receiver.stop()
        finish_jobs(Caller(app, session), "Import", 1)
        app = start({"url": other.url})
        app.clock.forward(4 * 86_400)
        app.run(app.app.webhooks.tidy())
        assert waiting(app) == 0
        assert "a receiver that is not configured here: gave up 1" in caplog.text


def test_giving_up_and_releasing_thousands_leaves_none_behind(start: Start, receiver: Receiver, session: str) -> None:
    app = start({"url": receiver.url}, arguments=("--max-pending-webhooks", "2500"))
    finish_jobs(Caller(app, session), "Import", 1)
    copies = (
        "INSERT INTO notice SELECT endpoint, '{}' || n, body, create_time, next_time + 1000000000, 1 FROM notice, "
        "(WITH RECURSIVE numbers(n) AS (SELECT 10000 UNION ALL SELECT n + 1 FROM numbers WHERE n < 12999) "
        "SELECT n FROM numbers) AS many WHERE attempts = 0"
    )
    execute(app, copies.format("z"))
    app.run(app.app.webhooks.tidy())
    assert waiting(app) == 2500
    app.run(app.app.webhooks.release())
    later = f"SELECT COUNT(*) FROM notice WHERE next_time > {app.clock.now()}"
    assert app.run(app.app.readers.read(lambda: app.app.store.database.execute_sql(later).fetchall())) == [(0,)]


def test_gone_ends_it_until_the_next_start(
    start: Start, receiver: Receiver, session: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 410
    app = start({"url": receiver.url})
    caller = Caller(app, session)
    job_ids = caller.create_many(2)
    caller.finish(job_ids[0])
    deliver(app)
    receiver.status = 200
    caller.finish(job_ids[1])
    deliver(app, 7200)
    assert receiver.subjects == job_ids[:1]
    assert "410 Gone" in caplog.text
    again = start({"url": receiver.url})
    deliver(again, 7200)
    assert sorted(receiver.subjects[1:]) == sorted(job_ids)


def test_no_redirect_is_followed(own_start: Start, receiver: Receiver, session: str) -> None:
    with Receiver() as elsewhere:
        receiver.status, receiver.headers = 307, {"Location": elsewhere.url}
        app = own_start({"url": receiver.url})
        caller = Caller(app, session)
        caller.finish(caller.create().id)
        deliver(app)
        deliver(app, 60)
        assert len(receiver.received) == 2
        assert elsewhere.received == []


def test_the_outbox_does_not_grow_for_ever(start: Start, receiver: Receiver, session: str) -> None:
    app = start({"url": receiver.url}, arguments=("--max-pending-webhooks", "10"))
    caller = Caller(app, session)
    receiver.stop()
    job_ids = caller.create_many(25)
    for job_id in job_ids:
        caller.finish(job_id)
        app.clock.forward(0.01)
    app.run(app.app.webhooks.tidy())
    assert waiting(app) == 10
    receiver.start()
    for _ in range(12):
        deliver(app, 5)
    assert sorted(receiver.subjects) == sorted(job_ids[-10:])
