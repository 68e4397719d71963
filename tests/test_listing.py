"""Lists and watches read along indexes, in chunks: on every engine, with every filter, in a table of any size."""

import random
import re
from collections.abc import Callable, Iterator
from typing import Any  # the fields of a filter, and what a database driver returns

import pytest

from headway_server.domain.change import Change
from headway_server.domain.job import Job, Status
from headway_server.storage import listing, rows
from headway_server.storage.change_log import ChangeLog, Snapshot
from headway_server.storage.listing import NEWEST, OLDEST, Filter, Position, Removal, position
from headway_server.storage.store import Store
from tests.conftest import ENGINES, empty_database
from tests.support.rows import multiply, opened

BEGAN = 1_700_000_000_000_000

SESSIONS = 30

MANY = 30_000


@pytest.fixture(scope="module", params=ENGINES)
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A database with many jobs of many sessions, as many removals, and as many commits noted."""
    job = Job("a" * 32, "f" * 32, name="x", status=Status.RUNNING, create_time=BEGAN, update_time=BEGAN, revision=1)
    job.wake_time = 2**62
    with opened(empty_database(request.param, request, tmp_path_factory.mktemp("large"))) as store:
        multiply(store, job, MANY, SESSIONS)
        with store.transaction():
            for copied in (
                "removed (session_hash, job_id, remove_time) SELECT session_hash, id, create_time FROM job",
                f"change_log (xid, server, jobs) SELECT (create_time - {BEGAN}) / 1000, 'x', '[]' FROM job",
                "open_key (session_hash, key, job_id) SELECT session_hash, id, id FROM job",
            ):
                store.database.execute_sql(f"INSERT INTO {copied}")
        store.database.execute_sql("ANALYZE")
        yield store


UNSEEN = Snapshot(MANY - 100, (5, MANY - 200))

FILTERS: dict[str, dict[str, Any]] = {
    "no filter": {},
    "status": {"statuses": frozenset({Status.LOST, Status.FAILED})},
    "name": {"name": "absent"},
    "invoker": {"invoker": "absent"},
    "labels": {"labels": {"absent": "x", "other": "y"}},
    "stalled": {"stalled": True},
    "changed": {"changed_from": BEGAN + MANY * 1000},
    "all": {
        "statuses": frozenset(Status),
        "name": "x",
        "invoker": "x",
        "labels": {"a": "b"},
        "stalled": False,
        "changed_from": 1,
    },
}

SHARED_FILTERS: dict[str, dict[str, Any]] = {
    "unseen": {"unseen_by": UNSEEN},
    "unseen of all": {**FILTERS["all"], "unseen_by": UNSEEN},
}
"""Of databases that servers share."""

Scan = Callable[[Store, str | None], object]


def list_of(wanted: dict[str, Any]) -> Scan:
    middle = (BEGAN + MANY * 500, "8", "8")
    return lambda store, session: store.listing.jobs(
        Filter(session, **wanted), middle, 50, until=OLDEST, stop=lambda: True
    )


LISTS: dict[str, Scan] = {
    **{name: list_of(wanted) for name, wanted in FILTERS.items()},
    "removals": lambda store, session: store.listing.removals(session, (BEGAN, "", ""), 256),
}

SHARED_LISTS: dict[str, Scan] = {
    **{name: list_of(wanted) for name, wanted in SHARED_FILTERS.items()},
    "unseen removals": lambda store, session: store.listing.removals(session, (BEGAN, "", ""), 256, UNSEEN),
}

KEY = (f"{7:032x}", f"{1000:032x}")

LOOKS: dict[str, Scan] = {
    "states": lambda store, _: store.states_of([KEY] * 5),
    "one job": lambda store, _: store.get(KEY),
    "a key": lambda store, _: store.ids_by_key([KEY]),
    "its sessions": lambda store, _: store.sessions_with(KEY[1]),
    "due": lambda store, _: store.due(BEGAN, 100),
    "next keys": lambda store, _: store.keys_after(KEY, 100),
    "to write": lambda store, _: store.load([KEY] * 5),
}
"""What watches of one job, reads and the sweep ask for."""

SHARED_LOOKS: dict[str, Scan] = {
    "news": lambda store, _: ChangeLog(store.database, "me").look(UNSEEN),
}


def plans(store: Store, monkeypatch: pytest.MonkeyPatch, scan: Scan, session: str | None) -> list[str]:
    """How the engine runs each statement of a scan: one text a statement."""
    statements: list[tuple[str, object]] = []
    execute: Callable[..., Any] = store.database.execute_sql

    def record(sql: str, params: object = None) -> object:
        statements.append((sql, params))
        return execute(sql, params)

    with monkeypatch.context() as patched:
        patched.setattr(store.database, "execute_sql", record)
        scan(store, session)
    explain = "EXPLAIN " if store.engine.shared else "EXPLAIN QUERY PLAN "
    assert statements
    return ["\n".join(str(row[-1]) for row in execute(explain + sql, params).fetchall()) for sql, params in statements]


def assert_walks(store: Store, plan: str) -> None:
    """Nothing is read but ranges of indexes, nothing is sorted, and nothing is compiled to machine code first."""
    if store.engine.shared:
        assert not re.search("Seq Scan on (job|removed|label|change_log|open_key)", plan), plan
        assert "JIT" not in plan, plan
    else:
        # What is scanned there is a range of an index, and labels are looked up by their key.
        assert all(line.startswith(("SEARCH", "CORRELATED", "MULTI-INDEX", "INDEX")) for line in plan.splitlines()), (
            plan
        )


@pytest.mark.parametrize("session", [None, f"{7:032x}"], ids=["all", "session"])
@pytest.mark.parametrize("scan", [*LISTS, *SHARED_LISTS])
def test_no_list_reads_a_whole_table_or_sorts(
    large: Store, monkeypatch: pytest.MonkeyPatch, scan: str, session: str | None
) -> None:
    if scan in SHARED_LISTS and not large.engine.shared:
        return
    large.prepare_for_lists(60_000)
    for plan in plans(large, monkeypatch, {**LISTS, **SHARED_LISTS}[scan], session):
        assert_walks(large, plan)
        assert "Sort" not in plan, plan
        assert "USE TEMP B-TREE" not in plan, plan
        assert re.search(r"(job|removed)_\w*time\w*", plan), plan


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("scan", [*LOOKS, *SHARED_LOOKS])
def test_no_look_at_some_jobs_reads_a_whole_table(
    large: Store, monkeypatch: pytest.MonkeyPatch, scan: str, prepared: bool
) -> None:
    """Also where the connection is prepared for lists, as that of a look at what other servers wrote is."""
    if scan in SHARED_LOOKS and not large.engine.shared:
        return
    large.disconnect()
    large.connect()
    if prepared:
        large.prepare_for_lists(60_000)
    for plan in plans(large, monkeypatch, {**LOOKS, **SHARED_LOOKS}[scan], None):
        assert_walks(large, plan)


@pytest.fixture(scope="module", params=ENGINES)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with opened(empty_database(request.param, request, tmp_path_factory.mktemp("small"))) as store:
        yield store


def jobs_of(session: str, rng: random.Random, count: int) -> list[Job]:
    """Jobs of which many were created at the same time, newest first."""
    made = [
        Job(
            session,
            f"{number:032x}",
            name=rng.choice("xyz"),
            status=rng.choice([*Status]),
            labels=rng.choice([{}, {"a": "1"}, {"a": "1", "b": "2"}]),
            create_time=BEGAN + rng.randrange(count // 4),
            update_time=BEGAN + rng.randrange(count),
            stalled=rng.random() < 0.5,
            wake_time=2**62,
            revision=1,
        )
        for number in range(count)
    ]
    return sorted(made, key=position, reverse=True)


def fits(job: Job, wanted: Filter) -> bool:
    return (
        wanted.session_hash in (None, job.session_hash)
        and (not wanted.statuses or job.status in wanted.statuses)
        and wanted.name in ("", job.name)
        and job.labels.items() >= wanted.labels.items()
        and wanted.stalled in (None, job.stalled)
        and job.update_time >= wanted.changed_from
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_scan_finds_what_a_plain_loop_finds(small: Store, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """However it is cut into chunks, wherever it begins and ends, whenever it is stopped, for one session and for all
    (two of which have jobs with the same ids)."""
    rng = random.Random(seed)
    sessions = [f"{seed:031x}{end}" for end in "ab"]
    jobs = sorted([job for each in sessions for job in jobs_of(each, rng, 60)], key=position, reverse=True)
    with small.transaction():
        small.save([Change(job, created=True, relabelled=True) for job in jobs])
    monkeypatch.setattr(listing, "ROWS", 3)
    monkeypatch.setattr(listing, "SCANNED", 7)
    hits = 0
    try:
        for _ in range(60):
            wanted = Filter(
                rng.choice([None, *sessions]),
                statuses=frozenset(rng.sample([*Status], rng.choice([0, 0, 2, 4]))),
                name=rng.choice(["", "", "x", "none"]),
                labels=rng.choice([{}, {}, {"a": "1"}, {"b": "2", "a": "1"}]),
                stalled=rng.choice([None, None, True]),
                changed_from=rng.choice([0, 0, BEGAN + 30]),
            )
            after, until = NEWEST, OLDEST
            if rng.random() < 0.5:
                until, after = sorted(position(job) for job in rng.sample(jobs, 2))
            expected = [job for job in jobs if fits(job, wanted) and until <= position(job)]
            if after != NEWEST:
                place = after[:2] if wanted.session_hash else after
                expected = [job for job in expected if position(job)[: len(place)] < place]
            if wanted.session_hash:
                expected = [job for job in expected if position(job)[:2] >= until[:2]]
            found: list[Job] = []
            place_now: Position | None = after
            while place_now is not None:
                limit = rng.choice([1, 2, 10, 100])
                page = small.listing.jobs(
                    wanted,
                    place_now,
                    limit,
                    until=until,
                    room=rng.choice([0, 5_000, 10**6]),
                    stop=lambda: rng.random() < 0.3,
                )
                assert len(page.jobs) <= limit
                assert page.end is None or page.end < place_now, "no progress"
                found += page.jobs
                place_now = page.end
            assert found == expected, wanted
            hits += bool(expected)
        assert hits > 20, "most filters found nothing: the test looks at too little"
    finally:
        with small.transaction():
            small.save([Change(job, removed=True) for job in jobs])


def test_a_page_is_cut_before_its_rows_are_read(small: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read beyond the room is a chunk, and not what was asked for."""
    session = "c" * 32
    fat = {f"{number:0128}": number for number in range(256)}
    jobs = [
        Job(session, f"{number:032x}", parts=fat, create_time=BEGAN + number, wake_time=2**62) for number in range(200)
    ]
    read: list[int] = []
    from_row = rows.from_row

    def counted(row: Any) -> Job:
        read.append(1)
        return from_row(row)

    monkeypatch.setattr(rows, "from_row", counted)
    with small.transaction():
        small.save([Change(job, created=True) for job in jobs])
    try:
        page = small.listing.jobs(Filter(session), NEWEST, 1000, room=400_000)
        assert 8 <= len(page.jobs) <= 12
        assert len(read) == len(page.jobs)
        assert page.jobs == jobs[: -len(page.jobs) - 1 : -1]
        assert page.end == position(page.jobs[-1])
        assert len(small.listing.jobs(Filter(session), NEWEST, 1000, room=0).jobs) == 1
    finally:
        with small.transaction():
            small.save([Change(job, removed=True) for job in jobs])


def test_removals_come_in_pages_oldest_first(small: Store) -> None:
    ids = [f"{number:032x}" for number in range(20)]
    sessions = ["d" * 32, "e" * 32]
    removed = [Removal(session, job_id, BEGAN + int(job_id, 16) // 3) for session in sessions for job_id in ids]
    for removal in removed:
        job = Job(removal.session_hash, removal.id, update_time=removal.update_time, wake_time=2**62)
        with small.transaction():
            small.save([Change(job, created=True)])
        with small.transaction():
            small.save([Change(job, removed=True)])
    expected = sorted(removed, key=lambda removal: (removal.update_time, removal.id, removal.session_hash))
    for session in (None, *sessions):
        found: list[Removal] = []
        after = (BEGAN, "", "")
        while page := small.listing.removals(session, after, 7):
            found += [removal for removal in page if removal.session_hash in sessions]
            after = (page[-1].update_time, page[-1].id, page[-1].session_hash)
        assert found == [removal for removal in expected if session in (None, removal.session_hash)]
