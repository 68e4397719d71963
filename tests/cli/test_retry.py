"""`headway retry`, and `headway create --key`."""

import json

from tests.cli.run import Cli


def seen(cli: Cli, job: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(cli("get", job, "--json").out)
    return found


def test_retry_makes_the_new_job_and_prints_its_id(cli: Cli) -> None:
    job = cli("create", "--name", "Nightly", "--size", "9", "--unit", "files", "--label", "a=1").out.strip()
    cli("report", job, "--progress", "4", "--count", "copied=4", "--set", "offset=4")
    cli("fail", job, "--message", "no space")
    made = cli("retry", job, "--heartbeat-timeout", "1h")
    assert (made.status, made.err) == (0, "")
    again = seen(cli, made.out.strip())
    assert (again["name"], again["size"], again["unit"], again["labels"]) == ("Nightly", "9", "files", {"a": "1"})
    assert (again["progress"], again["counters"], again["continues"]) == ("4", {"copied": "4"}, job)
    assert (again["status"], again["heartbeatTimeout"]) == ("JOB_STATUS_RUNNING", "3600s")
    assert cli("vars", made.out.strip()).out == "offset=4\n"
    assert seen(cli, job)["continuedBy"] == made.out.strip()
    assert f"continued by:   {made.out.strip()}" in cli("get", job).out
    assert f"continues:      {job}" in cli("get", made.out.strip()).out


def test_retry_says_why_not(cli: Cli) -> None:
    job = cli("create").out.strip()
    running = cli("retry", job)
    assert (running.status, running.out) == (1, "")
    assert "take_over" in running.err
    cli("fail", job, "--message", "x")
    chosen = "0123456789abcdef" * 2
    assert json.loads(cli("retry", job, "--id", chosen, "--pending", "--json").out)["status"] == "JOB_STATUS_PENDING"
    # A repeat with the same id is no error; another retry names the job that is there.
    assert cli("retry", job, "--id", chosen, "--pending").out == f"{chosen}\n"
    refused = cli("retry", job)
    assert refused.status == 1
    assert chosen in refused.err
    assert cli("retry", "f" * 32).status == 3


def test_create_with_a_key_finds_the_unfinished_job(cli: Cli) -> None:
    first = cli("create", "--name", "Nightly", "--key", "nightly").out
    cli("report", first.strip(), "--progress", "3")
    again = cli("create", "--name", "Nightly", "--key", "nightly", "--json")
    found = json.loads(again.out)
    assert (f"{found['id']}\n", found["progress"], found["attempt"], found["key"]) == (first, "3", 2, "nightly")
    assert "key:            nightly" in cli("get", found["id"]).out
    cli("finish", found["id"])
    assert cli("create", "--key", "nightly").out != first
