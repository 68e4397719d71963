"""What could not be delivered waits on disk, and arrives once."""

import errno
import fcntl
import json
import logging
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest

import headway
from headway._spool import spool as spooling
from headway._spool.sender import Outcome, SpoolSender, deliver
from headway._spool.spool import SpoolFile, SpoolRecord
from headway.target import Target
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from tests.client.fakes import FakeServer, Proxy
from tests.client.test_lifecycle import run
from tests.support.server import ServerProcess

WORK = """
import headway, headway._engine.lifecycle
headway._engine.lifecycle.EXIT_TIMEOUT = 0.3
hw = headway.connect(exit_timeout=0.3)
"""

OFFLINE = (
    WORK
    + """
with hw, hw.job(name="offline", size=100) as job:
    for n in job.track(range(100)):
        job.count("added", 2)
    for n in range(2500):
        job.record_error(n, "bad")
    job.checkpoint({"at": 100})
    job.set({"k": "v"})
    job.part("p").advance(7)
    job.name = "renamed"
    job.results = {"n": 1}
"""
)


def flush(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headway.cli", "flush", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )


def check_offline(hw: headway.Client) -> None:
    (seen,) = hw.list()
    assert (seen.name, seen.status) == ("renamed", job_pb2.JOB_STATUS_COMPLETED)
    assert (dict(seen.parts), seen.counters["added"], seen.error_count) == ({"": 100, "p": 7}, 200, 2500)
    assert hw.results(None, seen.id) == {"n": 1}
    assert hw.variables(None, seen.id) == {"at": 100, "k": "v"}


def waiting(spool: Path) -> list[Path]:
    return sorted(spool.glob("*"))


@pytest.mark.parametrize("linked", [False, True])
def test_a_folder_that_is_not_the_users_alone_keeps_its_mode_and_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    """As HEADWAY_SPOOL=/etc would have it."""
    folder = tmp_path / "of-all"
    folder.mkdir()
    folder.chmod(0o755)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setenv("HEADWAY_SPOOL", str(tmp_path / ("link" if linked else "of-all")))
    with pytest.raises(PermissionError, match="chmod 700 it"):
        spooling.write(SpoolRecord("h:1", False, "j", "n", []))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert list(folder.iterdir()) == []


def test_a_job_that_never_saw_its_server_is_complete_after_flush(
    own_server: ServerProcess, session: str, spool: Path
) -> None:
    own_server.kill()
    done = run(OFFLINE, own_server.address, session)
    assert done.returncode == 0, done.stderr
    (spool_file,) = waiting(spool)
    assert f"waits in {spool_file}" in done.stderr
    assert stat.S_IMODE(spool_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700

    away = flush()
    assert (away.returncode, waiting(spool)) == (4, [spool_file])
    listed = json.loads(flush("--list", "--json").stdout)
    assert [(line["outcome"], line["target"], line["name"]) for line in listed] == [
        ("waiting", own_server.address, "renamed")
    ]
    assert session not in json.dumps(listed)

    own_server.start()
    sent = flush()
    assert (sent.returncode, sent.stdout.split()[0], waiting(spool)) == (0, "sent", [])
    with headway.connect(own_server.address, session=session) as hw:
        check_offline(hw)
    again = flush()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "headway: nothing is waiting\n")


def test_the_next_client_sends_it(own_server: ServerProcess, session: str, spool: Path) -> None:
    own_server.kill()
    run(OFFLINE, own_server.address, session)
    (spool_file,) = waiting(spool)
    own_server.start()
    with headway.connect(own_server.address, session="another") as hw, hw.job() as job:
        assert job.flush()
        for thread in threading.enumerate():
            if thread.name == "headway-spool":
                thread.join(10)
    assert not spool_file.exists()
    with headway.connect(own_server.address, session=session) as hw:
        check_offline(hw)


def test_what_did_arrive_is_not_counted_twice(server: ServerProcess, proxy: Proxy, session: str, spool: Path) -> None:
    script = (
        WORK
        + """
import sys
job = hw.job()
job.advance(3)
job.count("c", 3)
assert job.flush(5)
print("ready", flush=True)
sys.stdin.readline()
job.advance(4)
job.count("c", 4)
with job: pass
"""
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "HEADWAY_TARGET": proxy.address, "HEADWAY_SESSION": session},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        # From now on reports arrive, and the client does not know it.
        proxy.swallow()
        process.communicate("\n", timeout=15)
    (spool_file,) = waiting(spool)
    with headway.connect(server.address, session=session) as hw:
        (seen,) = hw.list()
        assert (seen.progress, seen.counters["c"]) == (7, 7)
        proxy.cut()
        for _ in range(2):
            copy = spool_file.read_bytes()
            assert flush().returncode == 0
            (seen,) = hw.list()
            assert (seen.status, seen.progress, seen.counters["c"]) == (job_pb2.JOB_STATUS_COMPLETED, 7, 7)
            spool_file.write_bytes(copy)


def test_a_closed_connection_that_delivers_late_takes_its_file_back(
    own_server: ServerProcess, session: str, spool: Path
) -> None:
    own_server.kill()
    with headway.connect(own_server.address, session=session, exit_timeout=0.1) as hw, hw.job() as job:
        job.advance(5)
    (spool_file,) = waiting(spool)
    assert SpoolFile.claim(spool_file) is None
    own_server.start()
    pending_call = job._job_state.waiting()[-1]
    assert pending_call.answer.wait(15)
    with headway.connect(own_server.address, session=session) as hw:
        assert hw.get(None, job.id).progress == 5
        assert hw.job().flush()
    assert not spool_file.exists()


def record(address: str, *requests: spooling.Request) -> SpoolRecord:
    return SpoolRecord(address, False, "0" * 32, "n", requests)


def spool_file(address: str, *requests: spooling.Request) -> SpoolFile:
    return spooling.write(record(address, *requests))


FINISH = rpc.FinishJobRequest(session_id="s", job_id="0" * 32, attempt=1)


def test_two_processes_do_not_send_one_twice(spool: Path) -> None:
    first = spool_file("host:1", FINISH)
    script = f"from headway._spool.spool import *; print(SpoolFile.claim(Path({str(first.path)!r})) is None)"

    def claimed_elsewhere() -> str:
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert claimed_elsewhere() == "True\n"
    first.release()
    # The other claims it and dies with it in hand.
    assert claimed_elsewhere() == "False\n"
    assert SpoolFile.claim(first.path) is not None


def test_a_file_that_was_sent_meanwhile_is_not_claimed(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = spool_file("host:1", FINISH)
    path = first.path
    first.release()
    real = fcntl.flock

    def late(handle: int, how: int) -> None:
        path.unlink()
        path.write_bytes(b"another file")
        real(handle, how)

    with path.open() as held:
        monkeypatch.setattr(fcntl, "flock", late)
        assert held and SpoolFile.claim(path) is None


def test_a_forked_child_does_not_hold_what_its_parent_holds(spool: Path) -> None:
    first = spool_file("host:1", FINISH)
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(ready[1], b".")
        os.read(go[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        first.release()
        assert SpoolFile.claim(first.path) is not None
    finally:
        os.write(go[1], b".")
        os.waitpid(pid, 0)
        for end in (*ready, *go):
            os.close(end)


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), PermissionError("no")])
def test_a_full_disk_is_one_warning(
    fault: OSError, spool: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(handle: int) -> None:
        raise fault

    monkeypatch.setattr(os, "fsync", full)
    with headway.connect("127.0.0.1:9", session="s", exit_timeout=0.1) as hw, hw.job(), hw.job():
        pass
    texts = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert sum("cannot be saved on disk" in text for text in texts) == 1
    assert sum("is not delivered" in text and "waits" not in text for text in texts) == 2
    assert waiting(spool) == []


def test_an_empty_setting_turns_it_off(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("HEADWAY_SPOOL", "")
    with headway.connect("127.0.0.1:9", session="s", exit_timeout=0.1) as hw, hw.job():
        pass
    assert list(spooling.spool_files()) == []
    assert not any("written" in record.getMessage() for record in caplog.records)


def test_the_state_folder_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HEADWAY_SPOOL")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert spooling.folder() == tmp_path / "headway" / "spool"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert spooling.folder() == tmp_path / ".local/state/headway/spool"


def test_the_spool_is_bounded(spool: Path) -> None:
    for _ in range(spooling.FILES):
        spool_file("host:1", FINISH).release()
    with pytest.raises(OSError, match="100 files"):
        spool_file("host:1", FINISH)


def test_a_file_is_bounded_and_keeps_what_matters_most(spool: Path) -> None:
    def report(sequence: int) -> rpc.ReportProgressRequest:
        error = job_pb2.RecordError(record="r", message="m" * 1000)
        return rpc.ReportProgressRequest(progress=sequence, sequence=sequence, record_errors=[error] * 1000)

    reports = [report(number) for number in range(1, 13)]
    written = spool_file("host:1", *reports, FINISH)
    assert written.path.stat().st_size <= spooling.BYTES
    read = written.read().requests
    kept = [len(request.record_errors) for request in read if isinstance(request, rpc.ReportProgressRequest)]
    assert kept == [1000] * 6 + [0] * 6
    assert [r.sequence for r in read if isinstance(r, rpc.ReportProgressRequest)] == list(range(1, 13))
    assert read[-1] == FINISH
    assert len(reports[-1].record_errors) == 1000


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"version": 2}', b"\xff", b'{"version":1,"requests":[["X",""]]}']
)
def test_a_damaged_file_is_put_aside(content: bytes, fake: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    held = spool_file(fake.address, FINISH)
    held.path.write_bytes(content)
    with grpc.insecure_channel(fake.address) as channel:
        assert deliver(held, channel)[0] is Outcome.REFUSED
    assert [path.suffix for path in held.path.parent.iterdir()] == [".refused"]
    assert len(caplog.records) == 1


def test_what_is_refused_for_good_is_put_aside(
    server: ServerProcess, session: str, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with headway.connect(server.address, session=session) as hw:
        job = hw.job()
        assert job.flush()
        hw.resume(None, job.id)
        finish = rpc.FinishJobRequest(session_id=session, job_id=job.id, attempt=1)
        spool_file(server.address, finish).release()
        done = flush("--json", "--target", "host:1")
        assert (done.returncode, json.loads(done.stdout)[0]["outcome"]) == (1, "refused")
        assert hw.get(None, job.id).status == job_pb2.JOB_STATUS_RUNNING
    assert [path.suffix for path in waiting(spool)] == [".refused"]


def test_a_token_goes_to_its_own_server_alone(fake: FakeServer, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_TOKEN", "secret")
    spool_file(fake.address, FINISH).release()
    assert flush("--target", "host:1").returncode == 0
    assert fake.service.tokens == {None}
    spool_file(fake.address, FINISH).release()
    assert flush("--target", fake.address).returncode == 0
    assert fake.service.tokens == {None, "Bearer secret"}


def test_a_server_in_trouble_leaves_it_for_later_and_disturbs_no_work(fake: FakeServer, spool: Path) -> None:
    def trouble(context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.INTERNAL, "what?")

    fake.service.on_finish = trouble
    held = spool_file(fake.address, FINISH)
    held.release()
    spool_sender = SpoolSender(Target(fake.address))
    spool_sender.join(10)
    assert not spool_sender.is_alive()
    assert held.path.exists() and SpoolFile.claim(held.path) is not None


def test_a_link_is_left_alone(spool: Path) -> None:
    held = spool_file("host:1", FINISH)
    held.release()
    link = spool / "x-link.json"
    link.symlink_to(held.path)
    assert SpoolFile.claim(link) is None


def test_who_breaks_off_the_wait_loses_nothing(session: str, spool: Path) -> None:
    script = """
import headway, os, signal, threading
hw = headway.connect(exit_timeout=60)
hw.job().advance()
flush = hw._engine.flush
def interrupted(*arguments, **options):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    return flush(*arguments, **options)
hw._engine.flush = interrupted
hw.close()
"""
    # Somebody takes the connection and says nothing: that is worth a wait.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = run(script, f"127.0.0.1:{listener.getsockname()[1]}", session)
    assert done.returncode == -2
    assert len(waiting(spool)) == 1


def test_a_forked_child_writes_down_its_own_part(own_server: ServerProcess, session: str, spool: Path) -> None:
    script = (
        WORK
        + """
import os, sys
with hw, hw.job(size=30) as job:
    job.advance(10)
    pid = os.fork()
    if pid == 0:
        job.advance(5)
        sys.exit(0)
    os.waitpid(pid, 0)
"""
    )
    own_server.kill()
    done = run(script, own_server.address, session)
    assert done.returncode == 0, done.stderr
    assert len(waiting(spool)) == 2
    own_server.start()
    assert flush().returncode == 0
    with headway.connect(own_server.address, session=session) as hw:
        (seen,) = hw.list()
        assert (seen.status, seen.progress) == (job_pb2.JOB_STATUS_COMPLETED, 15)
        assert sorted(seen.parts.values()) == [5, 10]


def test_a_failure_arrives_as_one(own_server: ServerProcess, session: str) -> None:
    own_server.kill()
    done = run(WORK + "\nwith hw, hw.job() as job: raise KeyError('mine')", own_server.address, session)
    assert done.stderr.splitlines()[-1] == "KeyError: 'mine'"
    own_server.start()
    assert flush().returncode == 0
    with headway.connect(own_server.address, session=session) as hw:
        (seen,) = hw.list()
        assert (seen.status, seen.error.message) == (job_pb2.JOB_STATUS_FAILED, "KeyError: 'mine'")


def test_who_delivers_everything_pays_for_no_spool(server: ServerProcess, session: str, spool: Path) -> None:
    done = run("import sys, headway.client; print('headway._spool.spool' in sys.modules)", server.address, session)
    assert done.stdout == "False\n"
    assert run("import headway\nwith headway.connect() as hw, hw.job(): pass", server.address, session).returncode == 0
    assert not spool.exists()


def test_who_takes_a_job_over_has_the_last_checkpoint_of_who_left_it(own_server: ServerProcess, session: str) -> None:
    own_server.kill()
    script = (
        WORK
        + """
job = hw.job(job_id="1" * 32)
job.advance(40)
job.checkpoint({"offset": 40})
hw.close()
"""
    )
    assert run(script, own_server.address, session).returncode == 0
    own_server.start()
    with headway.connect(own_server.address, session=session) as hw, hw.resume(None, "1" * 32) as job:
        assert (job.attempt, job.get("offset"), job.progress) == (2, 40, 40)
