"""Opens the database: which engine a URL means, how it is made durable, and whether its schema is ours."""

import fcntl
import hmac
import os
import secrets
import sqlite3
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

import peewee
from playhouse.migrations import Runner

from headway_server.models import FactRow

MIGRATIONS = Path(__file__).parent / "migrations"

NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "fuse.sshfs", "ceph"})
"""SQLite's write-ahead log needs memory shared by all that open the file, which these do not have."""

MIGRATION_LOCK = 0x48454144
"""PostgreSQL advisory lock that keeps two servers from migrating one database at once."""


class StartError(Exception):
    """The server cannot start; the message is one line and says what to do."""


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
    lock: TextIO | None = field(default=None, repr=False)
    """Held open as long as this process has the SQLite file to itself."""

    def close(self) -> None:
        """Close this thread's connection, and give the file free."""
        self.database.close()
        if self.lock is not None:
            self.lock.close()


def open_engine(url: str, application: str = "headway") -> Engine:
    """The engine for a `sqlite:///path` or `postgresql://…` URL. `application` names its connections.

    Raises StartError.
    """
    scheme = url.partition("://")[0]
    match scheme:
        case "sqlite":
            return _open_sqlite(url)
        case "postgresql" | "postgres":
            return _open_postgresql(url, application)
        case _:
            raise StartError("--database must begin with sqlite:/// or postgresql://, for example sqlite:///headway.db")


def _open_sqlite(url: str) -> Engine:
    text = url.removeprefix("sqlite://").removeprefix("/")
    if not text or text.startswith(":memory:"):
        raise StartError("--database needs a file: a database in memory would lose what was acknowledged")
    try:
        # Without links: all ways to one file must meet at one lock.
        path = Path(text).expanduser().resolve()
        if path.is_dir():
            raise StartError(f"--database: {path} is a folder; name a file in it")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = path.with_name(path.name + ".lock").open("a")
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StartError(f"--database: {text} cannot be written: {reason}") from None
    kind = _file_system(path.parent)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StartError(
            f"--database: {path.parent} is on a network file system ({kind}), where SQLite loses data; "
            "use a local disk, or PostgreSQL"
        )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise StartError(
            f"--database: another Headway server has {path} open; stop it, or use PostgreSQL for several servers"
        ) from None
    database = peewee.SqliteDatabase(str(path), pragmas=SQLITE_PRAGMAS, lock_type="IMMEDIATE", timeout=5)
    engine = Engine(database, shared=False, name=f"sqlite:///{path}", folder=path.parent, lock=lock)
    try:
        database.connect()
        if path.stat().st_mode & 63 != 0:
            path.chmod(0o600)
    except (peewee.DatabaseError, sqlite3.Error) as error:
        raise StartError(f"--database: {path} cannot be opened as a SQLite database: {error}") from None
    return engine


SQLITE_PRAGMAS: dict[str, str | int] = {
    "journal_mode": "wal",
    # NORMAL lost acknowledged commits in most simulated power cuts.
    "synchronous": "full",
    "journal_size_limit": 64 * 1024 * 1024,
    "cache_size": -65_536,
    "foreign_keys": 0,
}


def _open_postgresql(url: str, application: str) -> Engine:
    try:
        import psycopg
    except ImportError:
        raise StartError("PostgreSQL needs its driver: pip install 'headway[postgresql]'") from None
    try:
        psycopg.conninfo.conninfo_to_dict(url)
        parts = urlsplit(url)
        name = f"postgresql://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except (psycopg.Error, ValueError):
        raise StartError(
            "--database is not a PostgreSQL URL; write postgresql://user:password@host:5432/name"
        ) from None
    options = (
        "-c synchronous_commit=on -c statement_timeout=15s -c lock_timeout=5s "
        "-c idle_in_transaction_session_timeout=30s -c client_encoding=UTF8 -c timezone=UTC"
    )
    database = peewee.PostgresqlDatabase(
        url.replace("postgres://", "postgresql://", 1),
        prefer_psycopg3=True,
        application_name=application,
        connect_timeout=5,
        options=options,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=15_000,
    )
    engine = Engine(database, shared=True, name=name)
    try:
        database.connect()
        (fsync,) = database.execute_sql("SHOW fsync").fetchone()
        (full_page_writes,) = database.execute_sql("SHOW full_page_writes").fetchone()
        (encoding,) = database.execute_sql("SHOW server_encoding").fetchone()
    except peewee.DatabaseError as error:
        raise StartError(f"--database: {name} cannot be reached: {first_line(error)}") from None
    if fsync != "on" or full_page_writes != "on":
        raise StartError(
            f"--database: {name} runs with fsync or full_page_writes off and would lose acknowledged writes; "
            "turn both on"
        )
    if encoding != "UTF8":
        raise StartError(f"--database: {name} stores text as {encoding}; create it with ENCODING 'UTF8'")
    return engine


def first_line(error: Exception) -> str:
    """What a database says, as a notice can hold it."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


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
    if engine.shared:
        # Another server may be migrating: that can take its time, and so may this.
        engine.database.execute_sql("SET lock_timeout = 0")
        engine.database.execute_sql("SET statement_timeout = 0")
        engine.database.execute_sql("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
    try:
        runner = Runner(engine.database, str(MIGRATIONS))
        unknown = [step.name for step in runner.status() if step.path is None]
        if unknown:
            raise StartError(
                f"--database: {engine.name} was written by a newer Headway (it has {unknown[-1]}); "
                "install that version, or restore a backup from before"
            )
        steps: list[str] = runner.up()
    except peewee.DatabaseError as error:
        raise StartError(f"--database: {engine.name} could not be migrated: {first_line(error)}") from None
    finally:
        if engine.shared:
            engine.database.execute_sql("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
    return steps


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
        return _parse_key(path.read_text(), str(path))
    except OSError as error:
        raise StartError(f"--session-key: {path} cannot be read or made: {error.strerror}") from None
