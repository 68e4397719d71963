"""What each error of a database means for a call: one table for each engine, by the error's code.

The texts of errors are not used: they depend on the language of the server, and may contain data of callers.
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
"""The same error is logged once in this many seconds: an unreachable database fails thousands of calls."""

NO_DESCRIPTOR = (
    "The server cannot open another file: it has reached its system's limit of open files and connections. "
    "Try again; the operator must raise the limit (ulimit -n)."
)

DATABASE_ERRORS: tuple[type[Exception], ...] = (peewee.PeeweeException, sqlite3.Error)
"""All errors of database drivers. peewee passes some of them on as they are."""

try:
    import psycopg
except ImportError:  # SQLite does not need it.
    pass
else:
    DATABASE_ERRORS += (psycopg.Error,)

log = logging.getLogger(__name__)


class UnsafeConnection(peewee.OperationalError):
    """A connection works, but is not safe for the data.

    The message is one line without secrets. It continues a sentence that begins with the name of the database.
    """


class StatementRefused(Exception):
    """The server sent a wrong statement. The error has the place and the code, but no data from the database's text."""


class Treatment(enum.Enum):
    """How to treat an error. Nothing was committed, unless COMMIT itself failed."""

    RETRY = "try again on the same connection"
    """Another transaction interfered."""
    RECONNECT = "try again on a new connection"
    """The connection, or the database server, has changed."""
    UNAVAILABLE = "answer UNAVAILABLE"
    """A retry at once would not help, or would make the caller wait too long."""
    STORAGE_FULL = "answer STORAGE_FULL"
    BUG = "answer INTERNAL"
    """The statement or one of its values is wrong. It fails each time, and other calls of the batch do not."""


POSTGRESQL: Mapping[str, Treatment] = {
    # Keys are SQLSTATEs, or their first two characters, the class.
    "08": Treatment.RECONNECT,  # connection exception
    "0A": Treatment.RECONNECT,  # also: a cached plan that a migration has made stale
    "21": Treatment.BUG,  # cardinality violation
    "22": Treatment.BUG,  # data exception
    "23": Treatment.BUG,  # integrity constraint violation
    "23505": Treatment.RETRY,  # unique violation: another server created the same job
    "25": Treatment.RECONNECT,  # invalid transaction state; 25006: the server has become read-only
    "26": Treatment.RECONNECT,  # a pooler has dropped a prepared statement
    "28": Treatment.UNAVAILABLE,  # invalid authorization
    "3D": Treatment.UNAVAILABLE,  # no such database
    "40": Treatment.RETRY,  # transaction rollback: serialization failure, deadlock
    "42": Treatment.RECONNECT,  # access rule, or a table that is missing while a backup is restored
    "53": Treatment.UNAVAILABLE,  # insufficient resources: memory, connections
    "53100": Treatment.STORAGE_FULL,
    "54": Treatment.BUG,  # program limit exceeded
    "55": Treatment.UNAVAILABLE,  # object not in prerequisite state; 55P03: lock timeout
    "57": Treatment.RECONNECT,  # operator intervention: shutdown, crash, starting up
    "57014": Treatment.UNAVAILABLE,  # query cancelled, usually by its timeout
    "58": Treatment.RECONNECT,  # system error
    "XX": Treatment.RECONNECT,  # internal error, corrupted data
}

SQLITE: Mapping[int, Treatment] = {
    # Keys are extended codes, or their lowest byte, the primary code.
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
    # The cache differs from the file, because another process has changed the file.
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: Treatment.RECONNECT,
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: Treatment.RECONNECT,
    sqlite3.SQLITE_MISMATCH: Treatment.BUG,
    sqlite3.SQLITE_MISUSE: Treatment.RECONNECT,
    sqlite3.SQLITE_RANGE: Treatment.BUG,
    sqlite3.SQLITE_NOTADB: Treatment.UNAVAILABLE,
}

MYSQL: Mapping[int, Treatment] = {
    # Keys are error numbers. MariaDB has the same ones.
    1020: Treatment.RETRY,  # the record has changed since it was read (snapshot isolation)
    1021: Treatment.STORAGE_FULL,  # disk full
    1040: Treatment.UNAVAILABLE,  # too many connections
    1048: Treatment.BUG,  # NULL in a column that does not allow it
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
    2006: Treatment.RECONNECT,  # the server closed the connection
    2013: Treatment.RECONNECT,  # connection lost during the query
    2055: Treatment.RECONNECT,  # connection lost
    3024: Treatment.UNAVAILABLE,  # max_execution_time
}

UNKNOWN = Treatment.RECONNECT
"""The treatment of an error without a code, or with a code that no table has."""


def treatment(error: Exception) -> Treatment:
    """How to treat an error of the database."""
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
            # psycopg rejects some values before PostgreSQL sees them.
            return Treatment.BUG if type(found).__name__ == "DataError" else UNKNOWN


def as_job_error(error: Exception) -> JobError:
    """The error for a caller when the database fails."""
    if treatment(error) is Treatment.STORAGE_FULL:
        return StorageFull()
    return DatabaseUnavailable(NO_DESCRIPTOR if _no_descriptor_left() else None)


def _no_descriptor_left() -> bool:
    """Whether this process or the machine has no free file descriptor: errors of databases do not say so."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def as_bug(error: Exception) -> StatementRefused:
    """The error for the log, for an error with the treatment BUG."""
    return StatementRefused(f"the database refused a statement: {name(error)}").with_traceback(error.__traceback__)


def name(error: Exception) -> str:
    """The error for the log: its code and kind, without text that a caller may have sent."""
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
            # Errors about data have a code. This error is about the connection.
            return f"{kind}: {first_line(found)}"


def first_line(error: Exception) -> str:
    """The first line of an error's text, for a log line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def cause(error: Exception) -> Exception:
    """The driver's own error. peewee wraps it, sometimes twice."""
    while isinstance(wrapped := getattr(error, "orig", None), Exception):
        error = wrapped
    return error


def _code(found: Exception) -> str | int | None:
    for attribute in ("sqlstate", "sqlite_errorcode"):
        code = getattr(found, attribute, None)
        if isinstance(code, (str, int)):
            return code
    # MySQL's drivers put the number before the text.
    first = found.args[0] if found.args else None
    return first if isinstance(first, int) else None


class ErrorLog:
    """Logs each error once in ERROR_LOG_INTERVAL, with the number of repetitions since."""

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
            # Forget old errors, so that the dict stays small.
            self._since = {t: (at, n) for t, (at, n) in self._since.items() if now - at < ERROR_LOG_INTERVAL}
            self._since[text] = (now, 0)
        again = f" ({count} more since the last log line)" if count else ""
        log.warning("the database failed: %s%s", text, again)


log_error = ErrorLog().add
"""Log an error of the database, once in ERROR_LOG_INTERVAL."""
