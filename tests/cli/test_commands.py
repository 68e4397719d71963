"""Every command but serve and watch, against a real server."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.cli.run import Cli
from tests.support.server import ServerProcess

NewJob = Callable[..., str]


def test_create_prints_the_id_alone(cli: Cli) -> None:
    result = cli("create")
    assert (result.status, result.err) == (0, "")
    assert re.fullmatch(r"[0-9a-f]{32}\n", result.out)


def test_create_takes_all_that_a_job_has(cli: Cli, new_job: NewJob) -> None:
    chosen = "0123456789abcdef" * 2
    options = ["--name", "Näme 📚", "--invoker", "me", "--size", "200", "--unit", "records", "--label", "a=1"]
    options += ["--label", "b=x=y", "--heartbeat-timeout", "60s", "--stall-timeout", "5m", "--retention", "7d"]
    assert new_job(*options, "--id", chosen, "--pending") == chosen
    job = json.loads(cli("get", chosen, "--json").out)
    assert job["status"] == "JOB_STATUS_PENDING"
    assert (job["name"], job["invoker"], job["size"], job["unit"]) == ("Näme 📚", "me", "200", "records")
    assert job["labels"] == {"a": "1", "b": "x=y"}
    assert (job["heartbeatTimeout"], job["stallTimeout"], job["retention"]) == ("60s", "300s", "604800s")
    assert (job["progress"], job["stalled"], job["counters"]) == ("0", False, {})
    assert new_job(*options, "--id", chosen, "--pending") == chosen
    assert cli("create", "--id", chosen, "--name", "other").status == 1


def test_start_prints_the_attempt_alone(cli: Cli, new_job: NewJob) -> None:
    job = new_job("--pending")
    assert cli("start", job).out == "1\n"
    again = cli("start", job)
    assert (again.status, again.out) == (1, "")
    assert again.err.startswith("headway: ")
    assert cli("start", job, "--take-over").out == "2\n"
    stale = cli("report", job, "--attempt", "1")
    assert (stale.status, stale.out) == (1, "")
    assert json.loads(cli("start", job, "--take-over", "--json").out)["attempt"] == 3


def test_report_carries_everything_at_once(cli: Cli, new_job: NewJob) -> None:
    job = new_job("--size", "10")
    words = ["--progress", "5", "--part", "p", "--sequence", "1", "--size", "20", "--message", "half", "--attempt", "1"]
    words += ["--count", "added=4", "updated=1", "--count", "added=1", "--error", "r1:BAD:it is: bad", "--error", "r2"]
    words += ["--set", "place=7", "name=text", "--set", "nothing=null"]
    for _ in range(2):
        result = cli("report", job, *words)
        assert (result.status, result.out, result.err) == (0, "", "")
    seen = json.loads(cli("get", job, "--json").out)
    assert (seen["size"], seen["progress"], seen["parts"], seen["message"]) == ("20", "5", {"p": "5"}, "half")
    assert (seen["counters"], seen["errorCount"]) == ({"added": "5", "updated": "1"}, "2")
    assert cli("vars", job).out == 'name="text"\nnothing=null\nplace=7\n'
    assert cli("errors", job).out == "r1  BAD  it is: bad\nr2\n"
    reply = json.loads(cli("report", job, "--advance", "2", "--json").out)
    assert (reply["status"], reply["progress"]) == ("JOB_STATUS_RUNNING", "7")


def test_report_says_that_the_job_is_to_be_cancelled(cli: Cli, new_job: NewJob) -> None:
    job = new_job()
    cancelled = cli("cancel", job, "--reason", "wrong file", "--grace", "1h")
    assert "to be cancelled" in cancelled.out
    result = cli("report", job)
    assert (result.status, result.out) == (0, "")
    assert "wrong file" in result.err
    assert cli("fail", job, "--code", "CANCELLED", "--message", "as wished").status == 0
    assert json.loads(cli("get", job, "--json").out)["status"] == "JOB_STATUS_CANCELLED"


def test_cancel_without_grace_ends_the_job(cli: Cli, new_job: NewJob) -> None:
    assert " CANCELLED " in cli("cancel", new_job(), "--grace", "0").out


def test_finish_with_results(cli: Cli, new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = new_job()
    assert "COMPLETED" in cli("finish", job, "--results", '{"added": 412, "list": [null, true, 1.5]}').out
    assert json.loads(cli("results", job).out) == {"added": 412, "list": [None, True, 1.5]}
    assert json.loads(cli("results", job, "--json").out) == {"results": {"added": 412, "list": [None, True, 1.5]}}

    file = tmp_path / "results.json"
    file.write_text('\ufeff"näh"')
    job = new_job()
    assert cli("finish", job, "--results-file", str(file), "--attempt", "1").status == 0
    assert cli("results", job).out == '"näh"\n'

    job = new_job()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"null")))
    assert cli("finish", job, "--results-file", "-").status == 0
    assert cli("results", job).out == "null\n"


def test_results_are_absent_before_the_end(cli: Cli, new_job: NewJob) -> None:
    job = new_job()
    result = cli("results", job)
    assert (result.status, result.out) == (0, "")
    assert json.loads(cli("results", job, "--json").out) == {}


def test_fail_says_why(cli: Cli, new_job: NewJob) -> None:
    job = new_job()
    assert "disk full" in cli("fail", job, "--message", "disk full", "--code", "RESOURCE_EXHAUSTED").out
    seen = json.loads(cli("get", job, "--json").out)
    assert (seen["status"], seen["error"]["code"], seen["error"]["message"]) == ("JOB_STATUS_FAILED", 8, "disk full")
    late = cli("report", job)
    assert (late.status, late.err.count("\n")) == (1, 1)


def test_variables(cli: Cli, new_job: NewJob) -> None:
    job = new_job()
    assert cli("set", job, "a=1", 'b={"c": []}', "c=text", "d=null").status == 0
    assert cli("set", job, "a=2", "--remove", "c").status == 0
    assert cli("vars", job).out == 'a=2\nb={"c": []}\nd=null\n'
    assert cli("vars", job, "a", "z").out == "a=2\n"
    assert json.loads(cli("vars", job, "a", "--json").out) == {"variables": {"a": 2}}
    assert cli("set", job).status == 2


def test_errors_shows_the_first_and_the_last(cli: Cli, new_job: NewJob) -> None:
    job = new_job()
    cli("report", job, "--error", *(f"r{index}:BAD" for index in range(150)))
    assert cli("errors", job).out.splitlines() == [f"r{index}  BAD" for index in range(150)]
    cli("report", job, "--error", *(f"r{index}:BAD" for index in range(150, 1000)))
    cli("report", job, "--error", *(f"r{index}:BAD" for index in range(1000, 1234)))
    lines = cli("errors", job).out.splitlines()
    assert (lines[0], lines[99], lines[100]) == ("r0  BAD", "r99  BAD", "… 1,034 more …")
    assert (lines[101], lines[-1], len(lines)) == ("r1134  BAD", "r1233  BAD", 201)
    assert json.loads(cli("errors", job, "--json").out)["total"] == "1234"


def test_get_for_people_and_with_a_wait(cli: Cli, new_job: NewJob) -> None:
    job = new_job("--name", "Import", "--size", "4", "--unit", "files", "--label", "site=main")
    cli("report", job, "--progress", "1", "--part", "one", "--count", "added=1")
    lines = cli("get", job, "--wait", "30s", "--after-revision", "1").out.splitlines()
    shown = {name: fact.strip() for name, _, fact in (line.partition(":") for line in lines)}
    assert shown["progress"] == "1/4 files (25 %)"
    assert (shown["name"], shown["labels"], shown["counted"]) == ("Import", "site=main", "added 1")
    assert shown["part 'one'"] == "1"
    assert cli("get", job, "--wait", "0.1s", "--after-revision", "99").status == 0


def test_list_filters_and_pages(cli: Cli, new_job: NewJob) -> None:
    assert cli("list").out == ""
    jobs = [new_job("--name", f"job {index}", "--label", f"even={index % 2 == 0}") for index in range(5)]
    cli("finish", jobs[0])

    def listed(*options: str) -> list[str]:
        return [job["id"] for job in json.loads(cli("list", "--json", *options).out)["jobs"]]

    assert listed() == jobs[::-1]
    assert listed("--limit", "2") == jobs[:2:-1]
    assert listed("--limit", "0") == jobs[::-1]
    assert listed("--status", "completed") == jobs[:1]
    assert listed("--status", "COMPLETED", "--status", "running") == jobs[::-1]
    assert listed("--name", "job 3") == [jobs[3]]
    assert listed("--label", "even=True") == [jobs[4], jobs[2], jobs[0]]
    assert listed("--invoker", "nobody") == []
    assert listed("--stalled") == []
    assert listed("--not-stalled") == jobs[::-1]
    table = cli("list", "--limit", "2")
    assert table.out.splitlines()[1].startswith(f"{jobs[4]}  RUNNING")
    assert "--limit 0" in table.err


def test_clear(cli: Cli, new_job: NewJob) -> None:
    job = new_job()
    assert cli("clear", job).status == 0
    gone = cli("get", job)
    assert (gone.status, gone.out, gone.err.count("\n")) == (3, "", 1)
    assert cli("clear", job).status == 3
    assert cli("clear", job, "--allow-missing").status == 0


def test_json_has_the_names_that_it_has_over_http(
    cli: Cli, new_job: NewJob, server: ServerProcess, session: str
) -> None:
    job = new_job("--heartbeat-timeout", "60s", "--size", "10")
    cli("report", job, "--part", "a", "--progress", "3", "--count", "files_seen=1", "--error", "r1")
    asked = Request(
        f"http://{server.http_address}/headway.v1.JobService/GetJob",
        json.dumps({"session_id": session, "job_id": job}).encode(),
        {"Content-Type": "application/json"},
    )
    with urlopen(asked, timeout=30) as answer:
        over_http = json.load(answer)
    shown = json.loads(cli("get", job, "--json").out)
    assert {name: shown[name] for name in over_http} == over_http
    assert {"errorCount", "createTime", "heartbeatTimeout"} <= shown.keys()
    assert shown["counters"] == {"files_seen": "1"}
    listed = json.loads(cli("list", "--json").out)
    assert listed.keys() == {"jobs", "nextPageToken"}


def test_another_session_sees_nothing(cli: Cli, new_job: NewJob) -> None:
    job = new_job()
    missing = cli("get", "0" * 32)
    for words in (["get", job], ["report", job], ["clear", job], ["vars", job], ["results", job], ["watch", job]):
        foreign = cli(*words, "--session", "another")
        assert (foreign.status, foreign.out, foreign.err) == (3, "", missing.err)
    assert cli("list", "--session", "another").out == ""


def test_options_stand_before_or_after_the_command(cli: Cli, session: str) -> None:
    before = cli("--session", session, "--json", "--timeout", "5", "create", "--name", "x")
    after = cli("create", "--name", "x", "--session", session, "--json", "--timeout", "5")
    assert json.loads(before.out)["name"] == json.loads(after.out)["name"] == "x"


def test_text_of_workers_is_shown_and_does_not_act(cli: Cli, new_job: NewJob) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\r\n<script>[red]"
    job = new_job("--name", evil, "--invoker", evil, "--label", f"k={evil}", "--unit", "\x1b[5m")
    cli("report", job, "--message", evil, "--count", f"{evil}=1", "--error", f"{evil}:{evil}", "--part", evil)
    cli("report", job, "--set", f"{evil}={evil}", "--part", evil, "--progress", "3")
    outputs = [cli(*words).out for words in (["list"], ["get", job], ["errors", job], ["vars", job])]
    cli("cancel", job, "--reason", evil, "--grace", "1h")
    outputs += [cli("report", job).err, cli("fail", job, "--message", evil).out, cli("watch", job).out]
    for output in outputs:
        assert all(line.isprintable() for line in output.split("\n")), output
        assert "u001b" in output
    for words in (["get", job], ["list"], ["vars", job], ["errors", job], ["watch", job]):
        assert all(line.isprintable() for line in cli(*words, "--json").out.split("\n"))
