"""What each error of a database means for the call that met it: one table for each engine, by the error's code.

Texts play no part: they depend on the language of the server, and may hold what callers sent.
"""

import enum
import errno
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping

import peewee

from headway_server.domain.errors import DatabaseUnavailable, JobError, StorageFull

ERROR_LOG_INTERVAL = 10.0
"""Seconds within which the log names the same error once: a database that is away fails thousands of calls."""

NO_DESCRIPTOR = (
    "The server can open no further file: it has as many connections and files open as its system allows. "
    "Try again; its operator must raise that limit (ulimit -n)."
)

DATABASE_ERRORS: tuple[type[Exception], ...] = (peewee.PeeweeException, sqlite3.Error)
"""All that a database's driver raises; peewee hands some of them on as they are."""

try:
    import psycopg
except ImportError:  # SQLite does not need it.
    pass
else:
    DATABASE_ERRORS += (psycopg.Error,)

log = logging.getLogger(__name__)


class UnsafeConnection(peewee.OperationalError):
    """A connection that works, but does not keep what the server promises.

    The message is one line without secrets; it goes on from the database's name.
    """


class StatementRefused(Exception):
    """A statement of ours is at fault. It has the place and the code, and none of the data that the database names."""


class Treatment(enum.Enum):
    """What to do about an error. Nothing was committed, except where COMMIT itself failed."""

    RETRY = "try again on the same connection"
    """Another transaction was in the way."""
    RECONNECT = "try again on a new connection"
    """The connection, or the server behind it, is no longer what it was."""
    UNAVAILABLE = "answer UNAVAILABLE"
    """Trying again at once would not help, or would make the caller wait too long."""
    STORAGE_FULL = "answer STORAGE_FULL"
    BUG = "answer INTERNAL"
    """The statement, or a value in it, is at fault: it fails each time, and its neighbours of the batch do not."""


POSTGRESQL: Mapping[str, Treatment] = {
    # By SQLSTATE, or by its first two letters, the class.
    "08": Treatment.RECONNECT,  # connection exception
    "0A": Treatment.RECONNECT,  # also: a cached plan that a migration has made stale
    "21": Treatment.BUG,  # cardinality violation
    "22": Treatment.BUG,  # data exception
    "23": Treatment.BUG,  # integrity constraint violation
    "23505": Treatment.RETRY,  # unique violation: another server created the same job
    "25": Treatment.RECONNECT,  # invalid transaction state, 25006 among them: the server has become read-only
    "26": Treatment.RECONNECT,  # a prepared statement that a pooler has dropped
    "28": Treatment.UNAVAILABLE,  # invalid authorization
    "3D": Treatment.UNAVAILABLE,  # no such database
    "40": Treatment.RETRY,  # transaction rollback: serialization failure, deadlock
    "42": Treatment.RECONNECT,  # access rule, or a table that is missing while a backup is restored
    "53": Treatment.UNAVAILABLE,  # insufficient resources: memory, connections
    "53100": Treatment.STORAGE_FULL,
    "54": Treatment.BUG,  # program limit exceeded
    "55": Treatment.UNAVAILABLE,  # object not in prerequisite state; 55P03: a lock was waited for long enough
    "57": Treatment.RECONNECT,  # operator intervention: shutdown, crash, starting up
    "57014": Treatment.UNAVAILABLE,  # query cancelled, by its timeout as a rule
    "58": Treatment.RECONNECT,  # system error
    "XX": Treatment.RECONNECT,  # internal error, corrupted data
}

SQLITE: Mapping[int, Treatment] = {
    # By extended code, or by its lowest byte, the primary code.
    sqlite3.SQLITE_ERROR: Treatment.RECONNECT,  # a table that is missing, or a transaction that is still open
    sqlite3.SQLITE_INTERNAL: Treatment.RECONNECT,
    sqlite3.SQLITE_PERM: Treatment.UNAVAILABLE,
    sqlite3.SQLITE_ABORT: Treatment.RECONNECT,
    sqlite3.SQLITE_BUSY: Treatment.UNAVAILABLE,  # its timeout has passed
    sqlite3.SQLITE_LOCKED: Treatment.UNAVAILABLE,
    sqlite3.SQLITE_NOMEM: Treatment.UNAVAILABLE,
    sqlite3.SQLITE_READONLY: Treatment.RECONNECT,
    sqlite3.SQLITE_INTERRUPT: Treatment.UNAVAILABLE,
    sqlite3.SQLITE_IOERR: Treatment.RECONNECT,
    sqlite3.SQLITE_IOERR_SHMSIZE: Treatment.STORAGE_FULL,  # no room for the index of the write-ahead log
    sqlite3.SQLITE_CORRUPT: Treatment.RECONNECT,
    sqlite3.SQLITE_FULL: Treatment.STORAGE_FULL,
    sqlite3.SQLITE_CANTOPEN: Treatment.UNAVAILABLE,
    sqlite3.SQLITE_PROTOCOL: Treatment.RECONNECT,
    sqlite3.SQLITE_SCHEMA: Treatment.RETRY,
    sqlite3.SQLITE_TOOBIG: Treatment.BUG,
    sqlite3.SQLITE_CONSTRAINT: Treatment.BUG,
    # What is held in memory differs from the file, which somebody else has changed.
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: Treatment.RECONNECT,
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: Treatment.RECONNECT,
    sqlite3.SQLITE_MISMATCH: Treatment.BUG,
    sqlite3.SQLITE_MISUSE: Treatment.RECONNECT,
    sqlite3.SQLITE_RANGE: Treatment.BUG,
    sqlite3.SQLITE_NOTADB: Treatment.UNAVAILABLE,
}

MYSQL: Mapping[int, Treatment] = {
    # By error number; MariaDB's are the same.
    1020: Treatment.RETRY,  # the record has changed since it was read (snapshot isolation)
    1021: Treatment.STORAGE_FULL,  # disk full
    1040: Treatment.UNAVAILABLE,  # too many connections
    1048: Treatment.BUG,  # NULL where none may be
    1053: Treatment.RECONNECT,  # the server shuts down
    1062: Treatment.RETRY,  # duplicate key: another server created the same job
    1114: Treatment.STORAGE_FULL,  # table full
    1153: Treatment.BUG,  # larger than max_allowed_packet
    1158: Treatment.RECONNECT,  # network errors, up to 1161
    1159: Treatment.RECONNECT,
    1160: Treatment.RECONNECT,
    1161: Treatment.RECONNECT,
    1205: Treatment.RETRY,  # lock timeout
    1213: Treatment.RETRY,  # deadlock
    1264: Treatment.BUG,  # number out of range
    1290: Treatment.RECONNECT,  # --read-only
    1317: Treatment.UNAVAILABLE,  # query interrupted
    1366: Treatment.BUG,  # text that the column cannot hold
    1406: Treatment.BUG,  # data too long
    1792: Treatment.RECONNECT,  # read-only transaction
    1836: Treatment.RECONNECT,  # read-only mode
    1927: Treatment.RECONNECT,  # connection killed
    1969: Treatment.UNAVAILABLE,  # max_statement_time
    2002: Treatment.RECONNECT,  # cannot connect (socket)
    2003: Treatment.RECONNECT,  # cannot connect
    2006: Treatment.RECONNECT,  # the server has gone away
    2013: Treatment.RECONNECT,  # connection lost during the query
    2055: Treatment.RECONNECT,  # connection lost
    3024: Treatment.UNAVAILABLE,  # max_execution_time
}

UNKNOWN = Treatment.RECONNECT
"""An error that has no code, or one that no table has."""


def treatment(error: Exception) -> Treatment:
    """What to do about a database's error."""
    found = cause(error)
    if isinstance(found, UnsafeConnection):
        return Treatment.UNAVAILABLE
    match _code(found):
        case str(state):
            return POSTGRESQL.get(state) or POSTGRESQL.get(state[:2], UNKNOWN)
        case int(code) if isinstance(found, sqlite3.Error):
            return SQLITE.get(code) or SQLITE.get(code & 0xFF, UNKNOWN)
        case int(code):
            return MYSQL.get(code, UNKNOWN)
        case _:
            # psycopg refuses some values before PostgreSQL sees them.
            return Treatment.BUG if type(found).__name__ == "DataError" else UNKNOWN


def as_job_error(error: Exception) -> JobError:
    """What a caller is told when the database fails."""
    if treatment(error) is Treatment.STORAGE_FULL:
        return StorageFull()
    return DatabaseUnavailable(NO_DESCRIPTOR if _no_descriptor_left() else None)


def _no_descriptor_left() -> bool:
    """Whether this process, or the machine, can open no further file: databases say of it only that it failed."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def as_bug(error: Exception) -> StatementRefused:
    """What our own log is told of an error of the kind BUG."""
    return StatementRefused(f"the database refused a statement: {name(error)}").with_traceback(error.__traceback__)


def name(error: Exception) -> str:
    """The error as the log may hold it: its code and kind, and no text that a caller may have sent."""
    found = cause(error)
    if isinstance(found, UnsafeConnection):
        return f"it {found}"
    kind = type(found).__name__
    match _code(found):
        case str(state):
            return f"{state} {kind}"
        case int(code):
            return f"{code} {getattr(found, 'sqlite_errorname', kind)}"
        case _:
            # What concerns data has a code; this is about the connection.
            return f"{kind}: {first_line(found)}"


def first_line(error: Exception) -> str:
    """What a database says, as a notice can hold it."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def cause(error: Exception) -> Exception:
    """The driver's own error: peewee wraps it, sometimes twice."""
    while isinstance(wrapped := getattr(error, "orig", None), Exception):
        error = wrapped
    return error


def _code(found: Exception) -> str | int | None:
    for attribute in ("sqlstate", "sqlite_errorcode"):
        code = getattr(found, attribute, None)
        if isinstance(code, (str, int)):
            return code
    # MySQL's drivers have the number in front of the text.
    first = found.args[0] if found.args else None
    return first if isinstance(first, int) else None


class ErrorLog:
    """Names each error in the log once in a while, with how often it was met since."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since: dict[str, tuple[float, int]] = {}

    def add(self, error: Exception) -> None:
        text, now = name(error), self._clock()
        with self._lock:
            last, count = self._since.get(text, (now - ERROR_LOG_INTERVAL, 0))
            if now - last < ERROR_LOG_INTERVAL:
                self._since[text] = (last, count + 1)
                return
            # The others are old news: what is held stays small.
            self._since = {t: (at, n) for t, (at, n) in self._since.items() if now - at < ERROR_LOG_INTERVAL}
            self._since[text] = (now, 0)
        again = f" ({count} more of these since the last line)" if count else ""
        log.warning("the database failed: %s%s", text, again)


log_error = ErrorLog().add
"""Name a database's error in the log, once in a while."""
