"""Connections to PostgreSQL: the parameters from a URL, and the checks of each connection before it is used."""

import os
import secrets
from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import quote

import peewee
import psycopg

from headway_server.storage.database_errors import UnsafeConnection, first_line

Connection: TypeAlias = "psycopg.Connection[tuple[str, ...]]"

PARAMETERS: Mapping[str, str] = {
    "application_name": "headway",
    # Seconds for each host.
    "connect_timeout": "5",
    # An unreachable host is detected within 25 s.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    # Of several hosts, use the one that accepts writes: a standby may return data older than acknowledged writes.
    "target_session_attrs": "read-write",
}
"""Defaults for parameters of libpq. The URL, its service and libpq's variables override them."""

NAME_LENGTH = 30
"""Characters of an operator's application_name that are kept: PostgreSQL keeps 63 characters in all."""

WRITABLE = ("any", "read-write", "primary")
"""Values of target_session_attrs that lead to a server that accepts writes."""

SETTINGS: Mapping[str, str] = {
    "client_encoding": "UTF8",
    "default_transaction_isolation": "read committed",
    # A statement or lock that takes longer fails, and its callers get an error.
    "statement_timeout": "15s",
    "lock_timeout": "5s",
    # A server that is frozen in a transaction must not hold its locks for ever.
    "idle_in_transaction_session_timeout": "30s",
    "timezone": "UTC",
}
"""Settings of each session. Statements set them, because poolers drop the `options` of a connection."""

DURABLE = ("on", "remote_apply")
"""Values of synchronous_commit that wait for the disk. The operator may have chosen the stronger one."""

SET_DURABLE = (
    "set_config('synchronous_commit', CASE current_setting('synchronous_commit') "
    "WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)"
)

REQUIRED: Mapping[str, tuple[str, ...]] = {
    **{name: (value,) for name, value in SETTINGS.items()},
    "synchronous_commit": DURABLE,
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "server_encoding": ("UTF8",),
    "transaction_isolation": ("read committed",),
    "transaction_read_only": ("off",),
}
"""The required values of settings, which are checked for each session."""

ADVICE: Mapping[str, str] = {
    "fsync": "acknowledged writes could be lost; turn it on",
    "full_page_writes": "acknowledged writes could be lost; turn it on",
    "server_encoding": "create the database with ENCODING 'UTF8'",
    "transaction_read_only": "a standby, or default_transaction_read_only; name a server that accepts writes",
}

DROPPED = "a pooler in between does not keep settings; connect directly, or use its session mode"

OWN_SESSION = (
    "gives a connection no session of its own: a pooler in transaction or statement mode, which loses settings and "
    "locks; connect directly, or use its session mode"
)

CONNECTION_MARK = "headway.connection"
"""A custom setting that identifies a session."""


def parse(url: str, server_id: str = "") -> dict[str, str]:
    """The parameters of a URL, by libpq's names. application_name ends with `server_id`. Raises ValueError, which
    contains no part of a password."""
    rest = url.partition("://")[2]
    if rest.count("@") > 1 or "@" in rest.partition("/")[2]:
        # libpq would treat a part of the password as the host or the name, and show it in its errors.
        raise ValueError("is ambiguous: percent-encode the special characters in it (@ as %40, / as %2F, : as %3A)")
    try:
        parameters = {name: str(value) for name, value in psycopg.conninfo.conninfo_to_dict(url).items()}
    except psycopg.Error as error:
        # Other texts may contain a part of a password.
        what = f" ({first_line(error)})" if "URI query parameter" in str(error) else ""
        raise ValueError(f"is not a PostgreSQL URL{what}; write postgresql://user:password@host:5432/name") from None
    known = _known(parameters)
    if not all(port.isdecimal() or not port for port in known.get("port", "").split(",")):
        raise ValueError("has a port that is not a number; write postgresql://user:password@host:5432/name")
    if "replication" in known:
        raise ValueError("requests a replication connection; remove the parameter replication")
    if known["target_session_attrs"] not in WRITABLE:
        raise ValueError(
            f"must lead to a server that accepts writes: target_session_attrs must be {' or '.join(WRITABLE)}"
        )
    if server_id:
        name = known.get("application_name") or PARAMETERS["application_name"]
        parameters["application_name"] = f"{name[:NAME_LENGTH]} {server_id}"
    return parameters


def shown(parameters: Mapping[str, str]) -> str:
    """The destination of a connection, for people: hosts, ports and name, without secrets."""
    known = _known(parameters)
    hosts = (known.get("host") or known.get("hostaddr", "")).split(",")
    ports = known.get("port", "").split(",")
    places = []
    for number, host in enumerate(hosts):
        port = ports[min(number, len(ports) - 1)]
        place = f"[{host}]" if ":" in host else quote(host, safe="")
        places.append(f"{place}:{port}" if host and port else place)
    return f"postgresql://{','.join(places)}/{quote(known.get('dbname', ''), safe='')}"


def _known(parameters: Mapping[str, str]) -> dict[str, str]:
    """The parameters, with those that libpq adds from its variables, from the named service, and its defaults."""
    before = os.environ.get("PGSERVICE")
    if "service" in parameters:
        os.environ["PGSERVICE"] = parameters["service"]
    try:
        options = psycopg.pq.Conninfo.get_defaults()
    finally:
        if before is None:
            os.environ.pop("PGSERVICE", None)
        else:
            os.environ["PGSERVICE"] = before
    known = {option.keyword.decode(): option.val.decode() for option in options if option.val is not None}
    return {**known, **parameters}


class Database(peewee.PostgresqlDatabase):
    """peewee's database. Connections are set up and checked before use."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        known = _known(parameters)
        if known["target_session_attrs"] == "any" and "target_session_attrs" not in parameters:
            # This is libpq's own default.
            del known["target_session_attrs"]
        defaults = {name: value for name, value in PARAMETERS.items() if name not in known}
        self._conninfo = psycopg.conninfo.make_conninfo("", **defaults, **parameters)
        super().__init__(shown(parameters), prefer_psycopg3=True)

    def _connect(self) -> Connection:
        connection: Connection = psycopg.connect(self._conninfo, autocommit=True)
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: Connection) -> None:
        """Set what the server relies on, and read it back in another transaction: a pooler may drop settings, or give
        this connection's session to others. Raises UnsafeConnection."""
        mark = secrets.token_hex(8)
        values = {**SETTINGS, CONNECTION_MARK: mark}
        connection.execute(
            f"SELECT {', '.join(['set_config(%s, %s, false)'] * len(values))}, {SET_DURABLE}",
            [part for item in values.items() for part in item],
        )
        # A pooler gives an idle session to the next connection.
        with psycopg.connect(self._conninfo, autocommit=True) as another:
            ((others_mark,),) = another.execute("SELECT current_setting(%s, true)", (CONNECTION_MARK,))
        names = [*REQUIRED, CONNECTION_MARK]
        ((*found, found_mark),) = connection.execute(
            f"SELECT {', '.join(['current_setting(%s, true)'] * len(names))}", names
        )
        if found_mark != mark or others_mark == mark:
            raise UnsafeConnection(OWN_SESSION)
        for name, value in zip(REQUIRED, found, strict=True):
            if value not in REQUIRED[name]:
                raise UnsafeConnection(f"has {name} {value}, not {REQUIRED[name][0]}: {ADVICE.get(name, DROPPED)}")
