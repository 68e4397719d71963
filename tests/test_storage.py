"""What is written is read back the same, on every engine; tokens and hashes give nothing away."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playhouse.migrations import Runner

from headway_server.domain.change import Change, Rules
from headway_server.domain.estimate import Pace
from headway_server.domain.job import Cancellation, Error, Job, Status, StatusChange
from headway_server.domain.limits import INT64_MAX, MICROSECONDS
from headway_server.domain.report import RecordError
from headway_server.service.sealed_tokens import Sealer, SessionHasher
from headway_server.storage import rows, server_facts
from headway_server.storage.database import MIGRATIONS, StartError, migrate, open_engine, session_key
from headway_server.storage.listing import NEWEST, Filter, Found
from headway_server.storage.store import Store
from tests.conftest import ENGINES, empty_database

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NUMBER = st.integers(0, INT64_MAX)
DIGITS = st.text("0123456789abcdef", min_size=32, max_size=32)

JOBS = st.builds(
    Job,
    session_hash=DIGITS,
    id=DIGITS,
    name=TEXT,
    invoker=TEXT,
    size=NUMBER,
    unit=TEXT,
    status=st.sampled_from(Status),
    message=TEXT,
    labels=st.dictionaries(TEXT.filter(bool), TEXT, max_size=3),
    parts=st.dictionaries(TEXT, NUMBER, max_size=3),
    sequences=st.dictionaries(TEXT, NUMBER, max_size=3),
    progress=NUMBER,
    counters=st.dictionaries(TEXT, st.integers(-INT64_MAX, INT64_MAX), max_size=3),
    error_count=NUMBER,
    error=st.one_of(
        st.none(),
        st.builds(Error, st.integers(1, 16), TEXT, st.lists(st.tuples(TEXT, st.binary()), max_size=2).map(tuple), TEXT),
    ),
    cancellation=st.one_of(st.none(), st.builds(Cancellation, TEXT, NUMBER, st.booleans())),
    create_time=NUMBER,
    start_time=st.one_of(st.none(), NUMBER),
    end_time=st.one_of(st.none(), NUMBER),
    wake_time=NUMBER,
    stalled=st.booleans(),
    pace=st.one_of(
        st.none(),
        st.builds(Pace, NUMBER, NUMBER, NUMBER, st.integers(0, 99), st.floats(0, 1e12), st.floats(0, 1e12)),
    ),
    attempt=st.integers(1, 2**31 - 1),
    history=st.lists(st.builds(StatusChange, st.sampled_from(Status), NUMBER, NUMBER, TEXT), max_size=3).map(tuple),
    continues=st.sampled_from(["", "c" * 32]),
    continued_by=st.sampled_from(["", "d" * 32]),
    key=TEXT,
    revision=NUMBER,
)


@pytest.fixture(scope="module", params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    engine = open_engine(empty_database(request.param, request, tmp_path_factory.mktemp("store")))
    migrate(engine)
    yield Store(engine)
    engine.close()


@given(job=JOBS)
@settings(max_examples=60, deadline=None)
def test_a_job_is_read_back_as_it_was_written(store: Store, job: Job) -> None:
    key = (job.session_hash, job.id)
    with store.transaction():
        store.save([Change(job, created=True, changed=True, relabelled=bool(job.labels))])
    try:
        assert store.get(key) == job
        assert store.load([key]) == {key: job}
        if job.labels:
            assert store.listing.jobs(Filter(job.session_hash, labels=job.labels), NEWEST, 10) == Found([job], None)
    finally:
        with store.transaction():
            store.save([Change(job, removed=True, changed=True)])
    assert store.get(key) is None


def test_a_commit_compiles_nothing_however_many_jobs_it_stores(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling a statement costs more than running it; one for each job would keep all other callers waiting."""
    errors = [RecordError(f"r{number}", "C", "wrong") for number in range(150)]
    jobs = [Job("a" * 32, f"{number:032x}", wake_time=1) for number in range(20)]
    contexts = store.database.get_sql_context
    compiled = []

    def count() -> object:
        compiled.append(1)
        return contexts()

    monkeypatch.setattr(store.database, "get_sql_context", count)
    for times in (1, 2):
        changes = []
        for number, job in enumerate(jobs):
            job.labels = {"a": str(times), "b": "2"}
            job.error_count += len(errors) - number
            new = errors[: len(errors) - number]
            change = Change(job, times == 1, changed=True, rewritten=True, relabelled=True, record_errors=new)
            change.results = "{}" if times == 2 else None
            changes.append(change)
        with store.transaction():
            store.save(changes)
    assert not compiled
    monkeypatch.undo()
    for number, job in enumerate(jobs):
        total = 2 * (len(errors) - number)
        key = (job.session_hash, job.id)
        stored = [kept for kept, _ in store.record_errors(key)]
        assert stored == [n for n in range(1, total + 1) if n <= 100 or n > total - 100]
        assert store.results(key) == "{}"
    assert len(store.listing.jobs(Filter("a" * 32, labels={"a": "2", "b": "2"}), NEWEST, 100).jobs) == len(jobs)
    with store.transaction():
        store.save([Change(job, removed=True, changed=True) for job in jobs])
    assert not store.record_errors((jobs[0].session_hash, jobs[0].id))


def test_every_field_of_a_job_has_a_column() -> None:
    assert set(rows.COLUMNS) == set(Job.__dataclass_fields__)
    assert set(rows.REPORTED) <= set(rows.COLUMNS)


def test_migrating_twice_does_nothing(store: Store) -> None:
    assert migrate(store.engine) == []


def test_the_schema_of_the_models_is_the_schema_of_the_migrations(store: Store) -> None:
    from headway_server.storage.models import TABLES

    for model in TABLES:
        columns = {column.name for column in store.database.get_columns(model._meta.table_name)}
        assert columns == set(model._meta.columns)


@pytest.mark.parametrize("engine_name", ENGINES)
def test_jobs_of_an_earlier_release_are_there_after_a_migration(
    request: pytest.FixtureRequest, engine_name: str, tmp_path: Path
) -> None:
    engine = open_engine(empty_database(engine_name, request, tmp_path))
    old = Job("a" * 32, "f" * 32, name="old", labels={"a": "b"}, create_time=1, update_time=1, wake_time=1, revision=1)
    added = {"continues", "continued_by", "key"}
    try:
        shutil.copytree(MIGRATIONS, tmp_path / "released", ignore=shutil.ignore_patterns("0006*", "__pycache__"))
        Runner(engine.database, str(tmp_path / "released")).up()
        columns = {name: value for name, value in rows.to_row(old).items() if name not in added}
        names = ", ".join(f'"{name}"' for name in columns)
        marks = ", ".join([engine.database.param] * len(columns))
        engine.database.execute_sql(f"INSERT INTO job ({names}) VALUES ({marks})", [*columns.values()])
        assert "0006_continuations" in migrate(engine)
        store = Store(engine)
        assert store.get(("a" * 32, "f" * 32)) == old
        with store.transaction():
            store.save([Change(Job("a" * 32, "e" * 32, key="k", wake_time=1), created=True)])
        assert store.ids_by_key([("a" * 32, "k")]) == {("a" * 32, "k"): "e" * 32}
    finally:
        engine.close()


def test_a_database_asks_for_the_session_key_that_it_was_written_with(store: Store, tmp_path: Path) -> None:
    key = session_key(store.engine, "ab" * 32, tmp_path)
    assert key == bytes.fromhex("ab" * 32)
    with pytest.raises(StartError, match="another session key"):
        session_key(store.engine, "cd" * 32, tmp_path)
    with pytest.raises(StartError, match="64 hexadecimal digits"):
        session_key(store.engine, "secret", tmp_path)


def test_the_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'headway.db'}")
    try:
        migrate(engine)
        key = session_key(engine, "", tmp_path)
        assert session_key(engine, "", tmp_path) == key
    finally:
        engine.close()
    assert (tmp_path / "headway.session-key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob("*.new")] == []


@given(token=st.text(max_size=80))
def test_a_token_that_is_not_ours_is_no_position(token: str) -> None:
    assert Sealer(b"k" * 32).open("page", "scope", token) is None


def test_a_token_holds_for_its_purpose_and_scope_alone() -> None:
    sealer = Sealer(b"k" * 32)
    token = sealer.seal("page", "scope", [1, "x"])
    assert sealer.open("page", "scope", token) == [1, "x"]
    assert sealer.open("resume", "scope", token) is None
    assert sealer.open("page", "other", token) is None
    assert Sealer(b"j" * 32).open("page", "scope", token) is None


def test_a_token_shows_nothing_of_its_position() -> None:
    """A token in the log of a proxy, for example, reveals neither session nor job."""
    sealer = Sealer(b"k" * 32)
    hidden = "0123456789abcdef0123456789abcdef"
    token = sealer.seal("page", "scope", [1_800_000_000_000_000, hidden, hidden])
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    assert hidden[:8].encode() not in raw
    assert b"18000000" not in raw
    assert sealer.open("page", "scope", token) == [1_800_000_000_000_000, hidden, hidden]
    other = sealer.seal("page", "other scope", [1_800_000_000_000_000, hidden, hidden])
    assert other[-40:] != token[-40:], "the same bytes stand for the same text"


@given(position=st.lists(st.integers() | st.text(max_size=60), max_size=3), place=st.integers(0), bit=st.integers(0, 7))
def test_a_token_that_was_altered_is_none(position: list[int | str], place: int, bit: int) -> None:
    sealer = Sealer(b"k" * 32)
    token = sealer.seal("page", "scope", position)
    if len(token) > 512:
        return
    assert sealer.open("page", "scope", token) == position
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[place % len(raw)] ^= 1 << bit
    altered = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    assert sealer.open("page", "scope", altered) is None


def test_a_session_hash_depends_on_the_key() -> None:
    assert SessionHasher(b"a" * 32)("session") != SessionHasher(b"b" * 32)("session")
    assert SessionHasher(b"a" * 32)("session") != SessionHasher(b"a" * 32)("session ")


def test_a_clock_that_was_set_back_starts_behind_what_is_stored(store: Store) -> None:
    now = store.now()
    assert server_facts.start(store, now) == server_facts.Start(now)
    tomorrow = store.now() + 86_400 * MICROSECONDS
    with store.transaction():
        server_facts.note_time(store, tomorrow)
    begin = server_facts.start(store, now)
    assert begin.time > tomorrow
    with store.transaction():
        server_facts.note_time(store, 1)


def test_changed_rules_are_applied_from_the_first_job_on(store: Store) -> None:
    old, new = Rules(retention=7), Rules(retention=8)
    server_facts.follow_rules(store, old)
    assert server_facts.rules_applied(store, old) == ("", "")
    with store.transaction():
        server_facts.note_applied(store, old, ("a", "b"))
    server_facts.follow_rules(store, old)
    assert server_facts.rules_applied(store, old) == ("a", "b"), "a restart goes on where the last run ended"
    with store.transaction():
        server_facts.note_applied(store, old, None)
    server_facts.follow_rules(store, old)
    assert server_facts.rules_applied(store, old) is None
    server_facts.follow_rules(store, new)
    assert server_facts.rules_applied(store, new) == ("", "")
    with store.transaction():
        server_facts.note_applied(store, old, None)
    assert server_facts.rules_applied(store, old) is None, "another server has other rules now"
    assert server_facts.rules_applied(store, new) == ("", "")


def test_keys_are_read_in_their_order(store: Store) -> None:
    keys = [(character * 32, digit * 32) for character in "ab" for digit in "123"]
    changes = [Change(Job(*key, wake_time=INT64_MAX), created=True, changed=True) for key in keys]
    with store.transaction():
        store.save(changes)
    try:
        assert store.keys_after(("", ""), 4) == keys[:4]
        assert store.keys_after(keys[1], 10) == keys[2:]
        assert store.keys_after(keys[2], 1) == [keys[3]]
        assert store.keys_after(keys[5], 10) == []
    finally:
        with store.transaction():
            store.save([Change(change.job, removed=True, changed=True) for change in changes])
