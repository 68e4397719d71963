"""Connections to PostgreSQL: what of a URL is taken, and what each connection must keep to before it is used."""

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
    # A host that is gone without a word is noticed within 25 s.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    # Of several hosts the one that can be written; a standby also reads what is older than what was acknowledged.
    "target_session_attrs": "read-write",
}
"""Parameters of libpq that hold unless the URL, its service or libpq's variables say otherwise."""

NAME_LENGTH = 30
"""Characters of an operator's application_name that are kept: PostgreSQL keeps 63 of all."""

WRITABLE = ("any", "read-write", "primary")
"""Values of target_session_attrs that lead to a server that can be written."""

SETTINGS: Mapping[str, str] = {
    "client_encoding": "UTF8",
    "default_transaction_isolation": "read committed",
    # A statement or lock that takes longer fails, and its callers are told.
    "statement_timeout": "15s",
    "lock_timeout": "5s",
    # A server that was frozen in a transaction must not hold its locks for ever.
    "idle_in_transaction_session_timeout": "30s",
    "timezone": "UTC",
}
"""What each session is set to; by statements, since poolers drop the `options` of a connection's start."""

DURABLE = ("on", "remote_apply")
"""Values of synchronous_commit that wait for the disk; the operator may have chosen the stronger one."""

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
"""What each session is checked for."""

ADVICE: Mapping[str, str] = {
    "fsync": "acknowledged writes would be lost; turn it on",
    "full_page_writes": "acknowledged writes would be lost; turn it on",
    "server_encoding": "create the database with ENCODING 'UTF8'",
    "transaction_read_only": "a standby, or default_transaction_read_only; name a server that can be written",
}

DROPPED = "a pooler in between does not keep what is set; connect directly, or use its session mode"

OWN_SESSION = (
    "gives a connection no session of its own: a pooler in transaction or statement mode, which loses settings and "
    "locks; connect directly, or use its session mode"
)

CONNECTION_MARK = "headway.connection"
"""A setting of our own that tells one session from another."""


def parse(url: str, server_id: str = "") -> dict[str, str]:
    """The parameters of a URL, by libpq's names; application_name ends with `server_id`. Raises ValueError, which holds
    no part of a password."""
    rest = url.partition("://")[2]
    if rest.count("@") > 1 or "@" in rest.partition("/")[2]:
        # libpq would take a part of the password for the host or the name, and show it in its errors.
        raise ValueError("is ambiguous: percent-encode the special characters in it (@ as %40, / as %2F, : as %3A)")
    try:
        parameters = {name: str(value) for name, value in psycopg.conninfo.conninfo_to_dict(url).items()}
    except psycopg.Error as error:
        # Other texts may hold a part of a password.
        what = f" ({first_line(error)})" if "URI query parameter" in str(error) else ""
        raise ValueError(f"is not a PostgreSQL URL{what}; write postgresql://user:password@host:5432/name") from None
    known = _known(parameters)
    if not all(port.isdecimal() or not port for port in known.get("port", "").split(",")):
        raise ValueError("has a port that is not a number; write postgresql://user:password@host:5432/name")
    if "replication" in known:
        raise ValueError("asks for a connection that replicates; leave out replication")
    if known["target_session_attrs"] not in WRITABLE:
        raise ValueError(f"must lead to a server that can be written: target_session_attrs is {' or '.join(WRITABLE)}")
    if server_id:
        name = known.get("application_name") or PARAMETERS["application_name"]
        parameters["application_name"] = f"{name[:NAME_LENGTH]} {server_id}"
    return parameters


def shown(parameters: Mapping[str, str]) -> str:
    """Where a connection goes, for people: hosts, ports and name, and nothing secret."""
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
    """The parameters with what libpq adds: from its variables, from the service that is named, and its defaults."""
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
    """peewee's, whose connections are set up and checked before they are used."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        known = _known(parameters)
        if known["target_session_attrs"] == "any" and "target_session_attrs" not in parameters:
            # libpq's own default.
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
        """Set what the server relies on, and read it back in another transaction: a pooler may drop it, or give this
        connection's session to others. Raises UnsafeConnection."""
        mark = secrets.token_hex(8)
        values = {**SETTINGS, CONNECTION_MARK: mark}
        connection.execute(
            f"SELECT {', '.join(['set_config(%s, %s, false)'] * len(values))}, {SET_DURABLE}",
            [part for item in values.items() for part in item],
        )
        # A pooler gives a session that is idle to whoever comes next.
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
