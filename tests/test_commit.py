"""Commands that share a commit, against the same commands one by one: each must be answered alike."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway_server.domain import state_machine
from headway_server.domain.change import Change, Rules
from headway_server.domain.commands import Cancel, Command, Create, Fail, Finish, Start, Update
from headway_server.domain.errors import JobError
from headway_server.domain.job import Error, Job
from headway_server.domain.limits import MICROSECONDS
from headway_server.domain.report import Report
from headway_server.service.commit import Commit, Outcome
from headway_server.service.job_cache import JobCache
from headway_server.service.totals import Totals
from headway_server.storage.database import open_engine
from headway_server.storage.store import Store

RULES = Rules()
KEY = ("session", "0" * 32)
CREATE = Create("digest")

COMMANDS = st.one_of(
    st.builds(Start, take_over=st.booleans()),
    st.builds(Update, name=st.sampled_from(["a", "b"]), revision=st.integers(0, 3)),
    st.tuples(st.integers(0, 3), st.integers(0, 9)).map(lambda drawn: Report(attempt=drawn[0], progress=drawn[1])),
    st.builds(Cancel, reason=st.just("wrong file"), grace_period=st.sampled_from([0, MICROSECONDS])),
    st.builds(Finish, results=st.none(), digest=st.just("x"), attempt=st.integers(0, 3)),
    st.builds(Fail, error=st.just(Error(13, "broken")), attempt=st.integers(0, 3)),
    st.just(CREATE),
)


def together(store: Store, commands: Sequence[Command]) -> list[Outcome]:
    """The outcomes of commands that share one commit."""
    committed = JobCache(1_000_000)
    committed.note([state_machine.create(*KEY, CREATE, 1, RULES)])
    commit = Commit(store, committed, Totals(RULES.limits), RULES, 2, [[(KEY, command) for command in commands]])
    return commit.apply([(KEY, command) for command in commands])


def one_by_one(commands: Sequence[Command]) -> list[Outcome]:
    """The outcomes of the same commands in a commit each."""
    job = state_machine.create(*KEY, CREATE, 1, RULES).job
    outcomes: list[Outcome] = []
    for command in commands:
        change = Change(job.copy())
        try:
            state_machine.step(change, command, 2, RULES)
        except JobError as error:
            outcomes.append(error)
        else:
            job = change.job
            outcomes.append(job)
    return outcomes


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store; what the commits here need is in memory."""
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('commit') / 'headway.db'}")
    yield Store(engine)
    engine.close()


@given(commands=st.lists(COMMANDS, min_size=1, max_size=12))
def test_each_command_is_answered_as_if_it_were_alone(store: Store, commands: list[Command]) -> None:
    found, expected = together(store, commands), one_by_one(commands)
    follows = [type(a) is Report and type(b) is Report for a, b in pairwise(commands)]
    for command, outcome, alone, shares in zip(commands, found, expected, [*follows, False], strict=True):
        if isinstance(alone, JobError):
            assert type(outcome) is type(alone), command
        elif shares:
            assert isinstance(outcome, Job)
            assert outcome.attempt == alone.attempt
        else:
            assert outcome == alone, command
