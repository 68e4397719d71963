"""Koha's C4::BackgroundJob: jobs are parameters of the user's web session, by Perl's CGI::Session as YAML in MariaDB.

A report loads the session and writes it whole, so its cost grows with the jobs in it. YAML::Syck, the quick one, is
used if it is there; MariaDB runs with its defaults, so that a commit is on the disk, and is reached by its socket.
"""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from benchmarks.peers.measure import Failed, Missing, Peer, Teller, Way
from benchmarks.peers.servers import Program, Servers, other_user, program

SIZES = {1: 20, 10: 20, 100: 5, 1000: 1}
"""Jobs in the session → reports between two looks at the clock."""
SCRIPT = Path(__file__).with_suffix(".pl")
ADVICE = (
    "Debian: apt-get install libcgi-session-perl libcgi-session-serialize-yaml-perl libyaml-syck-perl libdbd-mysql-perl"
)
TABLE = "CREATE DATABASE koha;\nCREATE TABLE koha.sessions (id varchar(32) PRIMARY KEY, a_session longtext NOT NULL);"


class MariaDB(Program):
    """In a folder of its own, that of a user who may run it."""

    def __enter__(self) -> Self:
        perl = program("perl", "Debian: apt-get install perl")
        modules = ("-MCGI::Session", "-MCGI::Session::Serialize::yaml", "-MYAML::Syck", "-MDBD::mysql")
        if subprocess.run([perl, *modules, "-e1"], capture_output=True, check=False).returncode != 0:
            raise Missing(f"CGI::Session, its YAML or DBD::mysql is not installed ({ADVICE})")
        binary, install = (
            program(name, "Debian: apt-get install mariadb-server") for name in ("mariadbd", "mariadb-install-db")
        )
        self._data = Path(tempfile.mkdtemp(prefix="headway-mariadb-"))
        self.socket = self._data / "socket"
        user = other_user("mysql")
        if user is not None:
            shutil.chown(self._data, user)
        common = [f"--datadir={self._data}", *([f"--user={user}"] if user else [])]
        made = subprocess.run(
            [install, "--no-defaults", *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            raise Failed(f"mariadb-install-db: {(made.stderr or made.stdout).strip().splitlines()[-1:]}")
        script = self._data / "init.sql"
        script.write_text(TABLE)
        where = [f"--socket={self.socket}", "--skip-networking", f"--pid-file={self._data / 'pid'}"]
        self.launch([binary, "--no-defaults", *common, *where, f"--init-file={script}"], self.socket.exists)
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        shutil.rmtree(self._data, ignore_errors=True)


class Session(Teller):
    """A Perl process that reports when it is told to."""

    def __init__(self, socket: Path, jobs: int) -> None:
        self._perl = subprocess.Popen(
            ["perl", str(SCRIPT), str(socket), str(jobs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._line() != "ready":
            raise Failed(f"{SCRIPT.name} does not start")

    def _line(self) -> str:
        assert self._perl.stdout is not None
        return self._perl.stdout.readline().strip()

    def _ask(self, order: object) -> str:
        assert self._perl.stdin is not None
        self._perl.stdin.write(f"{order}\n")
        self._perl.stdin.flush()
        return self._line()

    def tell(self, reports: int) -> None:
        if self._ask(reports) != "told":
            raise Failed(f"{SCRIPT.name} ended")
        self.told += reports

    def stored(self) -> int:
        return int(self._ask("stored"))

    def close(self) -> None:
        self._perl.communicate()


@dataclass(frozen=True, slots=True)
class By(Way):
    socket: Path
    jobs: int
    chunk: int

    def open(self, number: int) -> Teller:
        return Session(self.socket, self.jobs)


def background_job(jobs: int, servers: Servers) -> Peer:
    mariadb = servers.of(MariaDB)
    name = f"C4::BackgroundJob's way, {jobs} job{'s' if jobs > 1 else ''} in the session"
    return Peer(name, By(mariadb.socket, jobs, SIZES[jobs]), mariadb, durable=True)


def lost_finish(servers: Servers) -> str:
    """What becomes of a job that finishes while somebody polls it, as a note."""
    mariadb = servers.of(MariaDB)
    mariadb.wake()
    command = ["perl", str(SCRIPT), str(mariadb.socket), "1", "overlap"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    mariadb.rest()
    if found.returncode != 0:
        raise Failed(f"{SCRIPT.name}: {found.stderr.strip()}")
    status = found.stdout.strip()
    fate = "is kept" if status == "completed" else "is lost"
    return f"C4::BackgroundJob's way: a finish while the session is polled {fate}: the job reads {status!r} after it"


PEERS = tuple(partial(background_job, jobs) for jobs in SIZES)
