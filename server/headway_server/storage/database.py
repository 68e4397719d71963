"""Opens the database: chooses the engine for a URL, makes it durable, and checks and migrates its schema."""

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
"""SQLite's write-ahead log needs shared memory between all processes that open the file. These file systems have
none."""

MIGRATION_LOCK = 0x48454144
"""The number of the PostgreSQL advisory lock that prevents two servers from migrating a database at the same time."""

MIGRATION_WAIT = 1.0
"""Seconds of waiting for that lock after which a log line explains the wait."""

HEADER = b"SQLite format 3\0"
"""The first bytes of a SQLite file, unless it is empty."""

KEY_FILE_BYTES_MAX = 1024

MESSAGE_MAX = 1000
"""The longest message of a StartError, in characters: it may quote a setting of any length."""

log = logging.getLogger(__name__)

Identity = tuple[int, int]
"""Device and inode: they identify a file independently of its path."""


class StartError(Exception):
    """The server cannot start. The message is one line and says what to do."""

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        super().__init__(line if len(line) <= MESSAGE_MAX else f"{line[:MESSAGE_MAX]}…")


class HeldFiles:
    """The files of a SQLite database that this process holds exclusively. Checks whether they are still in place."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._held = {_beside(path, ".lock"): _identity(os.fstat(lock))}
        self._connection: sqlite3.Connection | None = None

    def hold(self) -> None:
        """Keep a connection open from now on: SQLite removes its log when the last connection closes."""
        self._connection = sqlite3.connect(self.path, check_same_thread=False)
        self._connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        for file in (self.path, _beside(self.path, "-wal"), _beside(self.path, "-shm")):
            self._held[file] = _identity(file.stat())

    def missing(self) -> Path | None:
        """The path of a file that was removed, moved or replaced since it was opened, or None."""
        for file, held in self._held.items():
            if not _is(file, held):
                return file
        return None

    def close(self) -> None:
        """Release the files."""
        # Closing the last connection removes the log by its path. By now that may be the log of another file.
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
    """A database, and properties of its kind."""

    database: peewee.Database
    shared: bool
    """Whether other servers may use the database at the same time."""
    name: str
    """For people: the URL without its password."""
    folder: Path | None = None
    """The folder of a SQLite file."""
    warnings: tuple[str, ...] = ()
    """Advice for the operator."""
    files: HeldFiles | None = field(default=None, repr=False)
    """The files, for SQLite."""
    unusable: str = ""
    """Why nothing may be written now, for the log. Empty if writing is possible."""

    def check_files(self) -> None:
        """Check that the next start would find what is written now. Call it every few seconds."""
        missing = self.files.missing() if self.files is not None else None
        self.unusable = (
            f"{missing} was removed, moved or replaced while the server uses it; put it back, or restart the server"
            if missing is not None
            else ""
        )

    def close(self) -> None:
        """Close this thread's connection, and release the files."""
        self.database.close()
        if self.files is not None:
            self.files.close()


def open_engine(url: str, server_id: str = "") -> Engine:
    """The engine for a `sqlite:///path` or `postgresql://…` URL.

    `server_id` identifies this server's connections.

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
        raise StartError("--database needs a file: a database in memory would lose acknowledged writes")
    try:
        # Resolve links: all paths of one file must share one lock.
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
    """Make the file if there is none, for this user alone. Returns warnings. Raises StartError, and changes nothing, if
    the file, or one that SQLite would put beside it, does not belong to this user."""
    for suffix in ("-wal", "-shm", "-journal"):
        with _start_errors(_beside(path, suffix)):
            regular_files.check_own(_beside(path, suffix))
    with _start_errors(path), os.fdopen(regular_files.open_own(path), "rb") as file:
        # Close the file before SQLite opens it: closing a file releases all locks that the process has on it.
        head = file.read(len(HEADER))
        mode = os.fstat(file.fileno()).st_mode
    if head not in (b"", HEADER):
        raise StartError(f"--database: {path} is not a SQLite database; name another file")
    if mode & 0o077:
        return (f"other users can read {path}: run chmod 600 on it",)
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
"""KiB of the file that each connection caches: each of the ten would otherwise cache most of an index that it scans.
The system's cache has the rest: with sixteen times as much, commits of many jobs in a large file are not faster."""

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
    """The kind of file system of `folder`, or "" if the platform does not tell."""
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
    """Migrate an older schema. Returns the names of the steps. Raises StartError for a newer schema."""
    try:
        with _only_migration(engine):
            runner = Runner(engine.database, str(MIGRATIONS))
            unknown = [step.name for step in runner.status() if step.path is None]
            if unknown:
                raise StartError(
                    f"--database: {engine.name} was written by a newer Headway (it has {unknown[-1]}); "
                    "install that version, or restore an older backup"
                )
            steps: list[str] = runner.up()
            return steps
    except DATABASE_ERRORS as error:
        raise StartError(f"--database: {engine.name} could not be migrated: {first_line(error)}") from None


@contextmanager
def _only_migration(engine: Engine) -> Iterator[None]:
    """Prevent other servers from migrating this database at the same time."""
    database = engine.database
    if not engine.shared:
        yield
        return
    try:
        # Another server may be migrating, and migrations may take long.
        database.execute_sql("SET lock_timeout = 0")
        database.execute_sql("SET statement_timeout = 0")
        with _told_of_wait(engine.name):
            database.execute_sql("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        yield
        database.execute_sql("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
    finally:
        # The next connection has its timeouts again. Closing also releases the lock in any case.
        database.close()


@contextmanager
def _told_of_wait(name: str) -> Iterator[None]:
    """Log the wait if the migration lock is not available within MIGRATION_WAIT."""
    text = (
        "waiting until another server has migrated %s; if no server is migrating, find the holder of the lock with "
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
    """The key for hashing session ids: from the setting, or from a file in `folder`, which is made if needed.

    The database stores a hash of the key. With another key, callers would not find their jobs. So a wrong key raises
    StartError.
    """
    key = _parse_key(setting, "--session-key") if setting else _key_file(folder / "headway.session-key")
    check = hmac.new(key, b"headway session key", sha256).hexdigest()
    database = engine.database
    database.execute(FactRow.insert(name="session_key_check", value=check).on_conflict_ignore())
    query = FactRow.select(FactRow.value).where(FactRow.name == "session_key_check")
    (known,) = database.execute(query).fetchone()
    if not hmac.compare_digest(known, check):
        raise StartError(
            f"--session-key: {engine.name} was written with another session key; set that key "
            f"(HEADWAY_SESSION_KEY, or the file headway.session-key of the server that wrote it)"
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
                # Link the file: a rename would replace a key that another server made meanwhile.
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
