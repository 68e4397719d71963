"""`headway wait`: the exit status says how jobs ended, and nothing else is said."""

import json
import signal
import subprocess
from collections.abc import Callable

import pytest

from headway.cli import main
from tests.cli.run import Cli, run, spawn
from tests.support.server import ServerProcess
from tests.support.waiting import until

NewJob = Callable[..., str]

ENDINGS = [(["finish"], 0), (["fail", "--message", "no"], 5), (["fail", "--message", "no", "--code", "CANCELLED"], 6)]


@pytest.mark.parametrize(("ending", "status"), ENDINGS)
def test_it_waits_for_the_end_and_says_nothing(
    cli: Cli, new_job: NewJob, environment: dict[str, str], ending: list[str], status: int
) -> None:
    job = new_job()
    waiting = spawn("wait", job, environment=environment)
    watched(job, environment, waiting)
    cli("report", job, "--progress", "7")
    assert waiting.poll() is None
    cli(ending[0], job, *ending[1:])
    assert waiting.communicate(timeout=10) == ("", "")
    assert waiting.returncode == status
    assert cli("wait", job).status == status, "what has ended is not waited for"


def test_json_is_the_job_as_it_ended(cli: Cli, new_job: NewJob) -> None:
    first, second = new_job("--name", "first"), new_job("--name", "second")
    cli("finish", first)
    cli("fail", second, "--message", "disk full")
    result = cli("wait", first, second, "--json")
    assert (result.status, result.err) == (5, "")
    jobs = [json.loads(line) for line in result.out.splitlines()]
    assert [(job["name"], job["status"]) for job in jobs] == [
        ("first", "JOB_STATUS_COMPLETED"),
        ("second", "JOB_STATUS_FAILED"),
    ]


def test_of_several_jobs_the_highest_status_counts(cli: Cli, new_job: NewJob) -> None:
    jobs = [new_job() for _ in ENDINGS]
    for job, (ending, _) in zip(jobs, ENDINGS, strict=True):
        cli(ending[0], job, *ending[1:])
    assert cli("wait", *jobs).status == 6
    assert cli("wait", jobs[0], jobs[0]).status == 0
    missing = cli("wait", "0" * 32, jobs[0])
    assert (missing.status, missing.err.count("\n")) == (3, 1)
    assert cli("wait", "0" * 32, jobs[1]).status == 5


def test_its_time_is_over(cli: Cli, new_job: NewJob) -> None:
    job, other = new_job(), new_job()
    cli("finish", other)
    result = cli("wait", other, job, "--timeout", "0.3s")
    assert (result.status, result.out) == (124, "")
    assert job in result.err
    assert cli("wait", job, "--timeout", "0").status == 124


@pytest.mark.parametrize("timeout", ["0", "999999999999d"])
def test_what_has_ended_is_told_whatever_the_time(cli: Cli, new_job: NewJob, timeout: str) -> None:
    job = new_job()
    cli("fail", job, "--message", "no")
    assert cli("wait", job, "--timeout", timeout).status == 5


def test_any_time_will_do(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    job = new_job()
    waiting = spawn("wait", job, "--timeout", "999999999999d", environment=environment)
    watched(job, environment, waiting)
    cli("finish", job)
    assert waiting.communicate(timeout=10) == ("", "")
    assert waiting.returncode == 0


def test_a_job_that_is_cleared_is_not_found(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    job = new_job()
    waiting = spawn("wait", job, environment=environment)
    watched(job, environment, waiting)
    cli("clear", job)
    _, err = waiting.communicate(timeout=10)
    assert (waiting.returncode, err.count("\n")) == (3, 1)


def test_it_follows_restarts_of_the_server(own_server: ServerProcess, environment: dict[str, str]) -> None:
    environment["HEADWAY_TARGET"] = own_server.address
    job = run("create", environment=environment).out.strip()
    waiting = spawn("wait", job, environment=environment)
    watched(job, environment, waiting)
    own_server.kill()
    own_server.start()
    run("finish", job, environment=environment)
    assert waiting.communicate(timeout=20) == ("", "")
    assert waiting.returncode == 0


def test_between_two_jobs_the_server_may_be_unreachable_too(
    own_server: ServerProcess, environment: dict[str, str]
) -> None:
    environment["HEADWAY_TARGET"] = own_server.address
    first, second = (run("create", environment=environment).out.strip() for _ in range(2))
    waiting = spawn("wait", first, second, "--json", environment=environment)
    watched(first, environment, waiting)
    run("finish", first, environment=environment)
    assert waiting.stdout is not None
    assert json.loads(waiting.stdout.readline())["id"] == first
    own_server.kill()
    # Longer than gRPC itself tries again.
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(4)
    own_server.start()
    run("fail", second, "--message", "no", environment=environment)
    out, err = waiting.communicate(timeout=20)
    assert (json.loads(out)["id"], waiting.returncode, err) == (second, 5, "")


def test_it_times_out_while_the_server_is_unreachable(own_server: ServerProcess, environment: dict[str, str]) -> None:
    environment["HEADWAY_TARGET"] = own_server.address
    job = run("create", environment=environment).out.strip()
    waiting = spawn("wait", job, "--timeout", "4s", environment=environment)
    watched(job, environment, waiting)
    own_server.kill()
    _, err = waiting.communicate(timeout=20)
    assert waiting.returncode == 124
    assert job in err


def test_no_server_at_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HEADWAY_TARGET", "127.0.0.1:1")
    assert main(["wait", "0" * 32, "--session", "s"]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_ctrl_c(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    job = new_job()
    waiting = spawn("wait", job, environment=environment)
    watched(job, environment, waiting)
    waiting.send_signal(signal.SIGINT)
    assert waiting.communicate(timeout=10) == ("", "")
    assert waiting.returncode == 130


def watched(job: str, environment: dict[str, str], waiting: subprocess.Popen[str]) -> None:
    """Returns once the server says, by the pace that it asks for, that somebody looks at the job."""

    def seen() -> bool:
        assert waiting.poll() is None
        reply = json.loads(run("report", job, "--json", environment=environment).out)
        return float(reply["nextReportAfter"].removesuffix("s")) < 1

    until(seen)
