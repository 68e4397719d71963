"""`headway watch`: on a pipe, as JSON, and through restarts of the server. On a terminal: test_live."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.run import Cli, run, spawn
from tests.support.server import ServerProcess

NewJob = Callable[..., str]


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (["finish"], 0),
        (["fail", "--message", "no"], 5),
        (["fail", "--message", "no", "--code", "CANCELLED"], 6),
    ],
)
def test_the_exit_status_tells_how_the_job_ended(cli: Cli, new_job: NewJob, ending: list[str], status: int) -> None:
    job = new_job()
    cli(ending[0], job, *ending[1:])
    assert cli("watch", job).status == status
    assert cli("watch", job, "--json").status == status


def test_on_a_pipe_each_change_is_a_line(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    job = new_job("--name", "Import", "--size", "4", "--unit", "files")
    watch = spawn("watch", job, environment=environment)
    assert watch.stdout is not None
    assert " RUNNING   Import · 0/4 files (0 %)" in watch.stdout.readline()
    cli("report", job, "--progress", "1", "--message", "a.csv")
    assert watch.stdout.readline().endswith("· 1/4 files (25 %) · a.csv\n")
    cli("finish", job)
    out, err = watch.communicate(timeout=10)
    assert " COMPLETED Import" in out
    assert (watch.returncode, err) == (0, "")


def test_what_is_no_news_is_no_line(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    job = new_job("--name", "Import")
    watch = spawn("watch", job, environment=environment)
    assert watch.stdout is not None
    watch.stdout.readline()
    for _ in range(3):
        cli("report", job, "--set", "offset=7")
    cli("report", job, "--progress", "1")
    assert " · 1" in watch.stdout.readline()
    cli("finish", job)
    watch.communicate(timeout=10)


def test_only_some_jobs(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    new_job("--name", "Export")
    job = new_job("--name", "Import", "--label", "kind=import")
    lines = spawn("watch", "--active", "--label", "kind=import", environment=environment)
    objects = spawn("watch", "--active", "--label", "kind=import", "--json", environment=environment)
    assert lines.stdout is not None
    assert objects.stdout is not None
    assert " RUNNING   Import" in lines.stdout.readline()
    assert json.loads(objects.stdout.readline())["job"]["name"] == "Import"
    new_job("--name", "Another")
    cli("finish", job)
    # The end of what was shown is, what comes of it later is not.
    assert " COMPLETED Import" in lines.stdout.readline()
    assert json.loads(objects.stdout.readline())["job"]["status"] == "JOB_STATUS_COMPLETED"
    cli("clear", job)
    last = new_job("--name", "Last", "--label", "kind=import")
    assert last in lines.stdout.readline()
    assert json.loads(objects.stdout.readline())["job"]["name"] == "Last"
    for process in (lines, objects):
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)


def test_json_is_one_object_a_line(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    job = new_job("--name", "Import")
    watch = spawn("watch", job, "--json", environment=environment)
    assert watch.stdout is not None
    assert json.loads(watch.stdout.readline())["status"] == "JOB_STATUS_RUNNING"
    cli("finish", job)
    out, _ = watch.communicate(timeout=10)
    assert json.loads(out.splitlines()[-1])["status"] == "JOB_STATUS_COMPLETED"


def test_a_session_is_watched_until_ctrl_c(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    first = new_job("--name", "first")
    lines = spawn("watch", environment=environment)
    objects = spawn("watch", "--json", environment=environment)
    assert lines.stdout is not None
    assert objects.stdout is not None
    assert "RUNNING   first" in lines.stdout.readline()
    assert json.loads(objects.stdout.readline())["job"]["id"] == first
    second = new_job("--name", "second")
    assert second in lines.stdout.readline()
    assert json.loads(objects.stdout.readline())["job"]["id"] == second
    cli("clear", first)
    assert lines.stdout.readline().endswith(f"{first} REMOVED\n")
    assert json.loads(objects.stdout.readline())["removedJobId"] == first
    for process in (lines, objects):
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (130, "")


def test_a_cleared_job_is_not_found(cli: Cli, new_job: NewJob, environment: dict[str, str]) -> None:
    job = new_job()
    watch = spawn("watch", job, environment=environment)
    assert watch.stdout is not None
    watch.stdout.readline()
    cli("clear", job)
    _, err = watch.communicate(timeout=10)
    assert (watch.returncode, err.count("\n")) == (3, 1)


@pytest.mark.parametrize("of_session", [False, True])
def test_a_watch_goes_on_after_the_server_was_killed(
    own_server: ServerProcess, environment: dict[str, str], of_session: bool
) -> None:
    environment["HEADWAY_TARGET"] = own_server.address
    job = run("create", "--name", "Import", environment=environment).out.strip()
    watch = spawn("watch", *([] if of_session else [job]), environment=environment)
    assert watch.stdout is not None
    assert watch.stderr is not None
    watch.stdout.readline()
    own_server.kill()
    assert "trying again" in watch.stderr.readline()
    own_server.start()
    assert "answers again" in watch.stderr.readline()
    assert run("report", job, "--progress", "7", environment=environment).status == 0
    assert " · 7" in watch.stdout.readline()
    run("finish", job, environment=environment)
    assert "COMPLETED" in watch.stdout.readline()
    if of_session:
        watch.send_signal(signal.SIGINT)
    watch.communicate(timeout=10)
    assert watch.returncode == (130 if of_session else 0)


def test_a_watch_goes_on_over_a_database_that_was_set_back(
    own_server: ServerProcess, environment: dict[str, str], tmp_path: Path
) -> None:
    environment["HEADWAY_TARGET"] = own_server.address
    job = run("create", environment=environment).out.strip()
    own_server.stop()
    backup = (own_server.folder / "headway.db").read_bytes()
    own_server.start()
    for progress in ("1", "2", "3"):
        run("report", job, "--progress", progress, environment=environment)
    watch = spawn("watch", job, environment=environment)
    assert watch.stdout is not None
    assert " · 3" in watch.stdout.readline()
    own_server.kill()
    for file in own_server.folder.glob("headway.db-*"):
        file.unlink()
    (own_server.folder / "headway.db").write_bytes(backup)
    own_server.start()
    assert watch.stdout.readline().endswith(" · 0\n")
    run("finish", job, environment=environment)
    watch.communicate(timeout=10)
    assert watch.returncode == 0


def test_a_watch_gives_up_after_the_timeout(own_server: ServerProcess, environment: dict[str, str]) -> None:
    environment["HEADWAY_TARGET"] = own_server.address
    job = run("create", environment=environment).out.strip()
    watch = spawn("watch", job, "--timeout", "0.1s", environment=environment)
    assert watch.stdout is not None
    watch.stdout.readline()
    own_server.kill()
    _, err = watch.communicate(timeout=30)
    assert watch.returncode == 4
    assert "no server answers" in err.splitlines()[-1]
