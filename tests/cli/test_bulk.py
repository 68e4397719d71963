"""One command about several jobs, and jobs named by the beginning of their ids."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.run import Cli
from tests.cli.test_start import complete

NewJob = Callable[..., str]


def statuses(cli: Cli) -> dict[str, str]:
    """The status of each job of the session, by its name."""
    jobs = json.loads(cli("list", "--json").out)["jobs"]
    return {job["name"]: job["status"].removeprefix("JOB_STATUS_") for job in jobs}


@pytest.fixture
def jobs(cli: Cli, new_job: NewJob) -> dict[str, str]:
    """Ids of jobs by their names; done and broken have ended."""
    made = {name: new_job("--name", name, "--label", "kind=test") for name in ("done", "broken", "one", "two")}
    cli("finish", made["done"])
    cli("fail", made["broken"], "--message", "no disk")
    return made


def test_several_ids(cli: Cli, jobs: dict[str, str]) -> None:
    cancelled = cli("cancel", jobs["one"], jobs["two"], "--grace", "0", "--reason", "enough")
    assert (cancelled.status, cancelled.err) == (0, "headway: 2 jobs cancelled\n")
    assert [line.split()[1] for line in cancelled.out.splitlines()] == ["CANCELLED", "CANCELLED"]
    cleared = cli("clear", jobs["one"], "0" * 32, jobs["done"])
    assert cleared.status == 3
    assert cleared.err.splitlines()[-1] == "headway: 2 jobs of 3 removed"
    assert f"headway: {'0' * 32}: " in cleared.err
    assert statuses(cli) == {"two": "CANCELLED", "broken": "FAILED"}


def test_by_what_they_are(cli: Cli, jobs: dict[str, str]) -> None:
    dry = cli("fail", "--label", "kind=test", "--message", "gone", "--dry-run")
    assert (dry.status, dry.err) == (0, "headway: 2 jobs would be ended\n")
    assert {line.split()[0] for line in dry.out.splitlines()[1:]} == {jobs["one"], jobs["two"]}
    assert statuses(cli)["one"] == "RUNNING"
    assert cli("fail", "--label", "kind=test", "--message", "gone").err == "headway: 2 jobs ended\n"
    assert statuses(cli) == {"done": "COMPLETED", "broken": "FAILED", "one": "FAILED", "two": "FAILED"}
    assert cli("fail", "--label", "kind=test", "--message", "gone").err == "headway: 0 jobs ended\n"
    assert cli("clear", "--status", "failed", "--name", "broken").err == "headway: 1 job removed\n"
    assert "broken" not in statuses(cli)


def test_what_still_runs_is_removed_only_where_that_is_said(cli: Cli, jobs: dict[str, str]) -> None:
    assert cli("clear", "--label", "kind=test").err == "headway: 2 jobs removed\n"
    assert statuses(cli) == {"one": "RUNNING", "two": "RUNNING"}
    would = cli("clear", "--all", "--dry-run", "--json")
    assert {job["name"] for job in json.loads(would.out)["jobs"]} == {"one", "two"}
    assert cli("clear", "--all").status == 0
    assert statuses(cli) == {}


def test_a_dry_run_of_ids(cli: Cli, jobs: dict[str, str]) -> None:
    assert cli("clear", jobs["done"], "--dry-run").err == "headway: 1 job would be removed\n"
    assert "done" in statuses(cli)
    assert cli("clear", "0" * 32, "--dry-run").status == 3


@pytest.mark.parametrize("words", [["clear"], ["cancel"], ["fail", "--message", "m"], ["clear", "0" * 32, "--all"]])
def test_which_jobs_must_be_said(cli: Cli, jobs: dict[str, str], words: list[str]) -> None:
    before = statuses(cli)
    result = cli(*words)
    assert (result.status, result.out) == (2, "")
    assert "--status" in result.err
    assert statuses(cli) == before


def test_a_beginning_of_an_id_is_enough(cli: Cli, new_job: NewJob) -> None:
    for number in ("aaaa", "bbbb"):
        new_job("--id", f"0123456789abcdef{number}{'0' * 12}", "--name", f"job {number}")
    assert json.loads(cli("get", "0123456789ABCDEFA", "--json").out)["name"] == "job aaaa"
    whole = f"0123456789abcdefbbbb{'0' * 12}"
    assert json.loads(cli("get", whole.upper(), "--json").out)["name"] == "job bbbb"
    several = cli("clear", "01234567")
    assert several.status == 2
    assert "2 jobs" in several.err
    assert "job aaaa" in several.err
    assert len(statuses(cli)) == 2
    assert cli("get", "0123456789abcdefc").status == 3
    assert cli("cancel", "0123456789abcdefa", "0123456789abcdefb", "--grace", "0").status == 0
    assert cli("wait", "0123456789abcdefa").status == 6
    assert cli("finish", "0123456789abcdefa").status == 1


def test_an_id_is_completed_from_a_name(new_job: NewJob, environment: dict[str, str], tmp_path: Path) -> None:
    export, _ = new_job("--name", "Nightly export"), new_job("--name", "Import")
    assert complete("headway get nightly", environment, tmp_path) == [export]
    assert complete(f"headway clear {export[:30].upper()}", environment, tmp_path) == [export]
