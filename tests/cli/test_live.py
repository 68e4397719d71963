"""`headway watch` on a terminal, as a person sees it."""

import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import grpc
import pyte
import pytest
from google.rpc.status_pb2 import Status

from headway.cli.watch.lateness import Contacts
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.cli.run import HEADWAY, Cli, run
from tests.cli.terminal import OUTPUT_TIMEOUT, Terminal
from tests.support.server import ServerProcess

NewJob = Callable[..., str]


class Screen(Terminal):
    """`headway` on a terminal of this size, and what stands there."""

    def __init__(
        self, words: Sequence[str], environment: dict[str, str], more: dict[str, str], columns: int, rows: int
    ) -> None:
        more = {"COLUMNS": str(columns), "LINES": str(rows), **more}
        super().__init__(["env", *(f"{name}={value}" for name, value in more.items()), *HEADWAY, *words], environment)
        self._screen = pyte.HistoryScreen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""

    @property
    def lines(self) -> list[str]:
        """All that stands there, empty lines left out."""
        assert not self._screen.history.top, "it has scrolled"
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def line(self, word: str) -> str:
        """The one line with this word."""
        (found,) = (line for line in self.lines if word in line)
        return found

    def until(self, *words: str) -> None:
        """Returns once all of these stand there."""
        self._until(lambda: all(any(word in line for line in self.lines) for word in words))

    def until_gone(self, word: str) -> None:
        self._until(lambda: not any(word in line for line in self.lines))

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + OUTPUT_TIMEOUT
        while not condition():
            assert select.select([self._master], [], [], max(deadline - time.monotonic(), 0))[0], self.lines
            self._feed(os.read(self._master, 65536))

    def _feed(self, output: bytes) -> None:
        self.raw += output
        self._stream.feed(output)

    def close(self) -> int:
        """Waits for the end; its exit status."""
        status, rest = self.end()
        self._feed(rest)
        return status


@pytest.fixture
def watch(environment: dict[str, str]) -> Iterator[Callable[..., Screen]]:
    """Starts `headway watch` on a terminal."""
    screens = []

    def start(*words: str, columns: int = 100, rows: int = 30, **more: str) -> Screen:
        screen = Screen(["watch", *words], environment, more, columns, rows)
        screens.append(screen)
        return screen

    yield start
    for screen in screens:
        screen.__exit__()


Watch = Callable[..., Screen]


def share(line: str) -> float:
    """How much of the bar in a line is done."""
    bars: list[str] = re.findall("[━╾─]+", line)
    (bar,) = bars
    return (bar.count("━") + bar.count("╾") / 2) / len(bar)


def test_one_job_in_full(cli: Cli, new_job: NewJob, watch: Watch) -> None:
    job = new_job("--name", "Import [red]\x1b[31mred", "--size", "10", "--unit", "records")
    screen = watch(job)
    screen.until("0/10 records")
    cli("report", job, "--progress", "1", "--part", "one", "--count", "added=3", "--message", "marc.dat")
    cli("report", job, "--progress", "4", "--part", "two", "--error", "rec1:BAD_LEADER:no leader\x1b[2J")
    screen.until("rec1  BAD_LEADER  no leader\\u001b[2J")
    assert screen.lines[0].startswith("Import [red]\\u001b[31mred  ")
    assert screen.lines[0].endswith("  RUNNING")
    assert screen.lines[1].endswith(" 50 %")
    assert share(screen.lines[1]) == pytest.approx(0.5, abs=0.01)
    assert screen.lines[2].startswith("5/10 records · ")
    # A full bar is an even share: five of the ten for each of two parts.
    assert share(screen.line("  one")) == pytest.approx(0.2, abs=0.02)
    assert share(screen.line("  two")) == pytest.approx(0.8, abs=0.02)
    for words in ("added 3", "1 record error", "marc.dat"):
        assert screen.line(words)
    cli("finish", job)
    assert screen.close() == 0
    assert screen.lines[0].endswith("  COMPLETED")
    assert " · took " in screen.line("5/10 records")
    assert b"\x1b[2J" not in screen.raw
    assert b"\x1b[31mred" not in screen.raw
    assert screen.raw.rstrip().endswith(b"\x1b[?25h"), "the cursor is back"


def test_a_session_in_an_overview(cli: Cli, new_job: NewJob, watch: Watch) -> None:
    done = new_job("--name", "Weekly report", "--size", "50", "--unit", "pages")
    cli("report", done, "--progress", "50")
    cli("finish", done)
    cli("fail", new_job("--name", "Nightly import", "--size", "4"), "--message", "disk full")
    new_job("--name", "Not yet", "--pending")
    new_job("--name", "Mirror the photos", "--heartbeat-timeout", "0.3s")
    stalled = new_job("--name", "Rebuild the index", "--size", "80", "--stall-timeout", "0.3s")
    running = new_job("--name", "Stage records", "--size", "200", "--unit", "records")
    cli("report", running, "--progress", "50", "--part", "a.mrc", "--count", "added=40", "--message", "reading")
    cli("report", running, "--progress", "10", "--part", "b.mrc", "--error", "ocm7:BAD_LEADER:too short")
    cli("report", stalled, "--progress", "20")
    ending = new_job("--name", "Old export", "--size", "10", "--unit", "rows")
    cli("cancel", ending, "--reason", "wrong file", "--grace", "1h")
    screen = watch()
    screen.until("LOST", "STALLED", "ocm7", "Nightly", "Weekly")
    order = ["Rebuild the index", "Stage records", "Old export", "Mirror the photos", "Not yet", "Nightly", "Weekly"]
    names = [line for line in screen.lines if not line.startswith("  ")]
    assert [line.startswith(name) for line, name in zip(names, order, strict=True)] == [True] * len(order), names
    assert re.search(r"STALLED .* 25 %  no progress for \d+ s · 20/80$", screen.line("Rebuild"))
    assert re.search(r"LOST .* no contact for \d+ s · 0$", screen.line("Mirror"))
    assert re.search(
        r"RUNNING .* 0 %  to be cancelled within (59 min \d+ s|60 min): wrong file", screen.line("Old export")
    )
    assert re.search(r"FAILED .* 0 %  disk full · 0/4 · took \d+ s$", screen.line("Nightly"))
    assert re.search(r"COMPLETED ━+ 100 %  50/50 pages · took \d+ s$", screen.line("Weekly"))
    line = screen.line("Stage records")
    assert re.search(r"RUNNING .* 30 %  (no report for \d+ s · )?60/200 records", line)
    assert share(line) == pytest.approx(0.3, abs=0.04)
    below = screen.lines[screen.lines.index(line) + 1 :]
    assert below[0] == "  reading · added 40"
    assert below[1] == "  1 record error, the last: ocm7  BAD_LEADER  too short"
    assert re.match(r"  a.mrc +[━╾─]+ 50$", below[2])
    assert re.match(r"  b.mrc +[━╾─]+ 10$", below[3])
    screen.process.send_signal(signal.SIGINT)
    assert screen.close() == 130


def test_a_small_terminal_says_what_it_leaves_out(cli: Cli, new_job: NewJob, watch: Watch) -> None:
    for number in range(40):
        new_job("--name", f"Part {number}", "--size", "10")
    for number in range(3):
        cli("finish", new_job("--name", f"Done {number}"))
    screen = watch(columns=60, rows=12)
    screen.until("… and 31 running, 3 completed")
    assert [line.partition(" ─")[0].rstrip() for line in screen.lines[:-1]] == [f"Part {n}" for n in range(9)]
    assert all("  0 %  0/10" in line for line in screen.lines[:-1])


@pytest.fixture
def busy(environment: dict[str, str]) -> None:
    """A session with 20 running and 300 finished jobs, two of which failed; of the running ones the pace is known."""
    session = environment["HEADWAY_SESSION"]
    with grpc.insecure_channel(environment["HEADWAY_TARGET"]) as channel:
        stub = JobServiceStub(channel)

        def create(name: str, size: int = 0) -> str:
            return stub.CreateJob(pb.CreateJobRequest(session_id=session, name=name, size=size, unit="records")).id

        for number in range(300):
            request = pb.FinishJobRequest(session_id=session, job_id=create(f"Done {number}"))
            if number % 150 == 0:
                error = Status(code=2, message=f"no disk {number}")
                stub.FailJob(pb.FailJobRequest(session_id=session, job_id=request.job_id, error=error))
            else:
                stub.FinishJob(request)
        running = [create(f"Stage file number {number:02}", 200_000) for number in range(20)]
        for progress in (1000, 2000, 3000, 50_000):
            for job in running:
                stub.ReportProgress(pb.ReportProgressRequest(session_id=session, job_id=job, progress=progress))


@pytest.mark.usefixtures("busy")
def test_what_runs_keeps_its_facts_where_much_has_ended(watch: Watch) -> None:
    screen = watch(columns=80, rows=24)
    screen.until("… and 298 completed, 1 failed", "Stage file number 00")
    assert all(len(line) <= 80 for line in screen.lines)
    running = [line for line in screen.lines if line.startswith("Stage")]
    assert len(running) == 20
    for line in running:
        assert re.search(r" 25 %  (no report for \d+ s · )?50,000/200,000 records · ", line), line
        assert re.search(r"/s|/min|left|running \d+ s", line), line
    (failed,) = (line for line in screen.lines if line.startswith("Done"))
    assert re.match(r"Done 150 +FAILED +no disk 150 · ", failed)
    assert screen.lines[-1] == "… and 298 completed, 1 failed"
    active = watch("--active", columns=80, rows=24)
    active.until(*(f"Stage file number {number:02}" for number in range(20)))
    assert len(active.lines) == 20


def test_only_what_is_active(cli: Cli, new_job: NewJob, watch: Watch) -> None:
    cli("fail", new_job("--name", "Broken"), "--message", "no disk")
    cli("finish", new_job("--name", "Done"))
    new_job("--name", "Stage")
    screen = watch("--active", columns=80, rows=24)
    screen.until("Stage")
    other = new_job("--name", "Another", "--label", "kind=other")
    screen.until("Another")
    cli("finish", other)
    screen.until_gone("Another")
    failed = watch("--status", "failed", columns=80, rows=24)
    failed.until("no disk")
    assert failed.line("Broken")
    assert not [line for shown in (screen, failed) for line in shown.lines if "Done" in line]


def test_a_filter_and_a_job_exclude_each_other(cli: Cli, new_job: NewJob) -> None:
    result = cli("watch", new_job(), "--active")
    assert result.status == 2
    assert "--active" in result.err


def test_a_watcher_sees_that_a_worker_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    # The clock of this machine is an hour behind that of the server.
    now = datetime.now(UTC)
    contacts, job = Contacts(), job_pb2.Job(id="a", status=job_pb2.JOB_STATUS_RUNNING, revision=2)
    for second in range(0, 40, 4):
        job.last_contact_time.FromDatetime(now + timedelta(hours=1, seconds=second))
        contacts.hear(job)
        clock[0] += 4
        assert contacts.silence(job, now) is None
    clock[0] += 9
    assert contacts.silence(job, now) == "no report for 13 s"
    contacts.forget("a")
    assert contacts.silence(job, now) is None


def test_the_last_error_is_the_last(cli: Cli, new_job: NewJob, watch: Watch) -> None:
    job = new_job("--name", "Import", "--size", "10")
    new_job("--name", "Another")
    screen = watch()
    screen.until("Another")
    # All within the second in which errors are fetched once.
    cli("report", job, "--error", "first:BAD")
    cli("report", job, "--error", "second:BAD")
    cli("report", job, "--error", "third:BAD")
    screen.until("3 record errors, the last: third  BAD")


@pytest.mark.parametrize("columns", [40, 60, 90])
def test_where_it_is_narrow_the_rest_stands_below(cli: Cli, new_job: NewJob, watch: Watch, columns: int) -> None:
    job = new_job("--name", "An import with quite a long name", "--size", "200", "--unit", "records")
    new_job("--name", "Another one", "--unit", "rows")
    cli("report", job, "--progress", "50")
    screen = watch(columns=columns)
    screen.until("RUNNING", "Another")
    assert screen.lines[0].startswith("An impo")
    assert screen.lines[0].endswith(" 25 %")
    assert screen.lines[1].startswith("  50/200 records")
    assert all(len(line) <= columns for line in screen.lines)


def test_without_a_size_something_moves(new_job: NewJob, watch: Watch) -> None:
    job = new_job("--name", "Export")
    screen = watch(job)
    screen.until("RUNNING", "━")
    before = screen.lines[1]
    screen.until_gone(before)


def test_without_colours_the_end_of_a_bar_is_seen(cli: Cli, new_job: NewJob, watch: Watch) -> None:
    screen = watch(NO_COLOR="1")
    screen.until("no jobs in this session yet")
    job = new_job("--name", "Export", "--size", "10")
    cli("report", job, "--progress", "5")
    screen.until("50 %")
    assert share(screen.lines[1]) == pytest.approx(0.5, abs=0.01)
    cli("fail", job, "--message", "gave up")
    screen.until("gave up")
    screen.process.send_signal(signal.SIGINT)
    assert screen.close() == 130
    assert not re.search(rb"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38)[0-9;]*m", screen.raw)


def test_a_restart_of_the_server_leaves_the_display_as_it_is(
    own_server: ServerProcess, environment: dict[str, str], watch: Watch
) -> None:
    environment["HEADWAY_TARGET"] = own_server.address
    for name in ("First", "Second"):
        job = run("create", "--name", name, "--size", "10", environment=environment).out.strip()
    screen = watch(HEADWAY_TARGET=own_server.address)
    screen.until("First", "Second")
    own_server.kill()
    screen.until("the server does not answer; trying again")
    assert len(screen.lines) == 3
    own_server.start()
    screen.until_gone("does not answer")
    run("report", job, "--progress", "5", environment=environment)
    screen.until("50 %")
    assert [line.split()[0] for line in screen.lines] == ["First", "Second"]
    assert b"no jobs" not in screen.raw


def test_a_terminal_that_cannot_show_bars_gets_lines(new_job: NewJob, cli: Cli, watch: Watch) -> None:
    job = new_job("--name", "Import")
    cli("finish", job)
    for more in ({"PYTHONIOENCODING": "latin-1"}, {"TERM": "dumb"}):
        screen = watch(job, **more)
        assert screen.close() == 0
        assert b"COMPLETED Import" in screen.raw
        assert b"\x1b" not in screen.raw


def test_plain_on_a_terminal(cli: Cli, new_job: NewJob, watch: Watch) -> None:
    job = new_job()
    screen = watch(job, "--plain")
    screen.until(job)
    cli("finish", job)
    assert screen.close() == 0
    assert b"\x1b" not in screen.raw
