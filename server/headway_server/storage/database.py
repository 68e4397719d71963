"""Opens the database: which engine a URL means, how it is made durable, and whether its schema is ours."""

import fcntl
import hmac
import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import peewee
from playhouse.migrations import Runner

from headway_server.resources import regular_files
from headway_server.storage.database_errors import DATABASE_ERRORS, UnsafeConnection, cause, first_line
from headway_server.storage.models import FactRow

MIGRATIONS = Path(__file__).parent / "migrations"

NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "fuse.sshfs", "ceph"})
"""SQLite's write-ahead log needs memory shared by all that open the file, which these do not have."""

MIGRATION_LOCK = 0x48454144
"""PostgreSQL advisory lock that keeps two servers from migrating one database at once."""

MIGRATION_WAIT = 1.0
"""Seconds of waiting for that lock after which the log says so: a start that only waits looks like one that hangs."""

HEADER = b"SQLite format 3\0"
"""How a file of SQLite begins, unless it is empty."""

KEY_FILE_BYTES_MAX = 1024

MESSAGE_MAX = 1000
"""Characters of a message that stops the start: it may quote a setting of any length."""

log = logging.getLogger(__name__)

Identity = tuple[int, int]
"""Device and inode: what a file is, whatever its path."""


class StartError(Exception):
    """The server cannot start; the message says what to do, and is made one line."""

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        super().__init__(line if len(line) <= MESSAGE_MAX else f"{line[:MESSAGE_MAX]}…")


class HeldFiles:
    """The files of a SQLite database that this process has to itself, and whether they are still in their places."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._held = {_beside(path, ".lock"): _identity(os.fstat(lock))}
        self._connection: sqlite3.Connection | None = None

    def hold(self) -> None:
        """Keep a connection from here on: SQLite would otherwise remove its log whenever nobody has one."""
        self._connection = sqlite3.connect(self.path, check_same_thread=False)
        self._connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        for file in (self.path, _beside(self.path, "-wal"), _beside(self.path, "-shm")):
            self._held[file] = _identity(file.stat())

    def missing(self) -> Path | None:
        """A file that is no longer the one that is open here: removed, moved, or replaced."""
        for file, held in self._held.items():
            if not _is(file, held):
                return file
        return None

    def close(self) -> None:
        """Give the files free."""
        # Whoever closes the last connection removes the log by its path: that may be the log of another file by now.
        moved = self.path in self._held and not _is(self.path, self._held[self.path])
        if self._connection is not None and not moved:
            self._connection.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _identity(about: os.stat_result) -> Identity:
    return about.st_dev, about.st_ino


def _is(path: Path, held: Identity) -> bool:
    try:
        return _identity(path.stat()) == held
    except OSError:
        return False


@dataclass(slots=True)
class Engine:
    """A database, and what follows from its kind."""

    database: peewee.Database
    shared: bool
    """Whether other servers may use it at the same time."""
    name: str
    """For people: the URL without its password."""
    folder: Path | None = None
    """Where a SQLite file lies."""
    warnings: tuple[str, ...] = ()
    """What the operator had better change."""
    files: HeldFiles | None = field(default=None, repr=False)
    """Of SQLite."""
    unusable: str = ""
    """Why nothing may be written now, for the log; empty: it may."""

    def check_files(self) -> None:
        """Find out whether what is written would be found by the next start. Call it every few seconds."""
        missing = self.files.missing() if self.files is not None else None
        self.unusable = (
            f"{missing} was removed, moved or replaced while the server uses it; put it back, or restart the server"
            if missing is not None
            else ""
        )

    def close(self) -> None:
        """Close this thread's connection, and give the files free."""
        self.database.close()
        if self.files is not None:
            self.files.close()


def open_engine(url: str, server_id: str = "") -> Engine:
    """The engine for a `sqlite:///path` or `postgresql://…` URL.

    `server_id` tells this server's connections from those of others.

    Raises StartError.
    """
    scheme = url.partition("://")[0]
    match scheme:
        case "sqlite":
            return _open_sqlite(url)
        case "postgresql" | "postgres":
            return _open_postgresql(url, server_id)
        case _:
            raise StartError("--database must begin with sqlite:/// or postgresql://, for example sqlite:///headway.db")


def _open_sqlite(url: str) -> Engine:
    text = url.removeprefix("sqlite://").removeprefix("/")
    if not text or text.startswith(":memory:"):
        raise StartError("--database needs a file: a database in memory would lose what was acknowledged")
    try:
        # Without links: all ways to one file must meet at one lock.
        path = Path(text).expanduser().resolve()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StartError(f"--database: {text} cannot be written: {reason}") from None
    kind = _file_system(path.parent)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StartError(
            f"--database: {path.parent} is on a network file system ({kind}), where SQLite loses data; "
            "use a local disk, or PostgreSQL"
        )
    warnings = _check_sqlite_files(path)
    files = HeldFiles(path, _lock(path))
    database = peewee.SqliteDatabase(str(path), pragmas=SQLITE_PRAGMAS, lock_type="IMMEDIATE", timeout=5)
    engine = Engine(
        database, shared=False, name=f"sqlite:///{path}", folder=path.parent, warnings=warnings, files=files
    )
    try:
        database.connect()
        files.hold()
    except (peewee.DatabaseError, sqlite3.Error, OSError) as error:
        engine.close()
        raise StartError(f"--database: {path} cannot be opened as a SQLite database: {error}") from None
    return engine


def _check_sqlite_files(path: Path) -> tuple[str, ...]:
    """Make the file if there is none, for this user alone; warnings. StartError if it, or one that SQLite would put
    beside it, is not ours: nothing is changed then."""
    for suffix in ("-wal", "-shm", "-journal"):
        with _start_errors(_beside(path, suffix)):
            regular_files.check_own(_beside(path, suffix))
    with _start_errors(path), os.fdopen(regular_files.open_own(path), "rb") as file:
        # Closed before SQLite opens it: whoever closes a file gives up all the locks that the process has on it.
        head = file.read(len(HEADER))
        mode = os.fstat(file.fileno()).st_mode
    if head not in (b"", HEADER):
        raise StartError(f"--database: {path} is no SQLite database; name another file")
    if mode & 0o077:
        return (f"others can read {path}: chmod 600 it",)
    return ()


@contextmanager
def _start_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StartError(f"--database: {file} cannot be written: {error.strerror}") from None
    except ValueError as error:
        raise StartError(f"--database: {file} {error}") from None


def _lock(path: Path) -> int:
    with _start_errors(_beside(path, ".lock")):
        lock = regular_files.open_own(_beside(path, ".lock"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StartError(
            f"--database: another Headway server has {path} open; stop it, or use PostgreSQL for several servers"
        ) from None
    return lock


SQLITE_PAGES_KIB = 4096
"""KiB of the file that each connection keeps: of the ten, each would come to hold most of an index that it walks along.
The system's own cache has the rest: commits of many jobs in a large file take as long with sixteen times as much."""

SQLITE_PRAGMAS: dict[str, str | int] = {
    "journal_mode": "wal",
    # NORMAL lost acknowledged commits in most simulated power cuts.
    "synchronous": "full",
    "journal_size_limit": 64 * 1024 * 1024,
    # Negative: KiB, not pages.
    "cache_size": -SQLITE_PAGES_KIB,
    "foreign_keys": 0,
}


def _open_postgresql(url: str, server_id: str) -> Engine:
    try:
        from headway_server.storage import postgresql
    except ImportError:
        raise StartError("PostgreSQL needs its driver: pip install 'headway[postgresql]'") from None
    try:
        parameters = postgresql.parse(url, server_id)
    except ValueError as error:
        raise StartError(f"--database {error}") from None
    database = postgresql.Database(parameters)
    engine = Engine(database, shared=True, name=postgresql.shown(parameters))
    try:
        database.connect()
    except DATABASE_ERRORS as error:
        database.close()
        raise StartError(f"--database: {engine.name} {_why(error)}") from None
    return engine


def _why(error: Exception) -> str:
    found = cause(error)
    return str(found) if isinstance(found, UnsafeConnection) else f"cannot be reached: {first_line(found)}"


def _file_system(folder: Path) -> str:
    """The kind of file system that holds `folder`, or "" where the platform does not say."""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for mount in mounts:
        _, point, name, *_ = mount.split(" ")
        inside = point == "/" or f"{folder.resolve()}/".startswith(f"{point}/")
        if inside and len(point) >= len(best):
            best, kind = point, name
    return kind


def migrate(engine: Engine) -> list[str]:
    """Bring an older schema up to date; the names of the steps taken. A newer one raises StartError."""
    try:
        with _only_migration(engine):
            runner = Runner(engine.database, str(MIGRATIONS))
            unknown = [step.name for step in runner.status() if step.path is None]
            if unknown:
                raise StartError(
                    f"--database: {engine.name} was written by a newer Headway (it has {unknown[-1]}); "
                    "install that version, or restore a backup from before"
                )
            steps: list[str] = runner.up()
            return steps
    except DATABASE_ERRORS as error:
        raise StartError(f"--database: {engine.name} could not be migrated: {first_line(error)}") from None


@contextmanager
def _only_migration(engine: Engine) -> Iterator[None]:
    """Keep other servers from migrating this database meanwhile."""
    database = engine.database
    if not engine.shared:
        yield
        return
    try:
        # Another server may be migrating: that can take its time, and so may this.
        database.execute_sql("SET lock_timeout = 0")
        database.execute_sql("SET statement_timeout = 0")
        with _told_of_wait(engine.name):
            database.execute_sql("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        yield
        database.execute_sql("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
    finally:
        # The next connection has its timeouts again; and a lock that could not be released goes with this one.
        database.close()


@contextmanager
def _told_of_wait(name: str) -> Iterator[None]:
    """Log it if the migration lock is not given within MIGRATION_WAIT."""
    text = (
        "the start waits until another server has migrated %s; if no server does, find who holds the lock with "
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %d AND granted, and end that session "
        "with pg_terminate_backend(pid)"
    )
    told = threading.Timer(MIGRATION_WAIT, log.warning, (text, name, MIGRATION_LOCK))
    told.daemon = True
    told.start()
    try:
        yield
    finally:
        told.cancel()


def session_key(engine: Engine, setting: str, folder: Path) -> bytes:
    """The key that session ids are hashed with: from the setting, or from a file in `folder` that is made if need be.

    The database remembers a hash of it: with another key nobody would find their jobs, so that raises StartError.
    """
    key = _parse_key(setting, "--session-key") if setting else _key_file(folder / "headway.session-key")
    check = hmac.new(key, b"headway session key", sha256).hexdigest()
    database = engine.database
    database.execute(FactRow.insert(name="session_key_check", value=check).on_conflict_ignore())
    query = FactRow.select(FactRow.value).where(FactRow.name == "session_key_check")
    (known,) = database.execute(query).fetchone()
    if not hmac.compare_digest(known, check):
        raise StartError(
            f"--session-key: {engine.name} was written with another session key; give the one that it was "
            f"written with (HEADWAY_SESSION_KEY, or the file headway.session-key of the server that wrote it)"
        )
    return key


def _parse_key(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise StartError(f"{where} must be 64 hexadecimal digits; make one with: openssl rand -hex 32")
    return key


def _key_file(path: Path) -> bytes:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
        if not path.exists():
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w") as file:  # noqa: PTH123  # a descriptor, not a path
                file.write(secrets.token_hex(32) + "\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                # A link, unlike a rename, does not replace the key that another server made meanwhile.
                path.hardlink_to(temporary)
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        return _parse_key(regular_files.read_text(path, KEY_FILE_BYTES_MAX), str(path))
    except OSError as error:
        raise StartError(f"--session-key: {path} cannot be read or made: {error.strerror}") from None
    except ValueError as error:
        raise StartError(f"--session-key: {path} {error}") from None
