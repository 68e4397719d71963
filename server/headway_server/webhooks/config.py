"""The receivers of webhooks, and the events that each of them wants, from the settings."""

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from headway_server.domain.change import Event, EventType
from headway_server.resources import regular_files
from headway_server.webhooks.address_policy import is_host, may_reach

SECRET_PREFIX = "whsec_"  # noqa: S105  # how the secrets of Standard Webhooks begin
SECRET_BYTES = range(24, 65)

SECRET_FILE_BYTES_MAX = 8192

TABLE_KEYS = frozenset({"url", "secret", "secret_file", "events", "name", "labels"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A receiver of webhooks, and the events that it wants."""

    url: str = field(repr=False)
    """May contain a secret of the receiver: never show it."""
    secrets: tuple[bytes, ...] = field(repr=False)
    """Every webhook is signed with each of these secrets."""
    events: frozenset[EventType] = frozenset(EventType)
    name: str = "*"
    """A pattern for names of jobs: `*`, `?` and `[…]` as in a shell."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that a job must have."""

    @property
    def key(self) -> str:
        """Its name in the database. It depends on the URL alone."""
        return sha256(self.url.encode()).hexdigest()[:32]

    @property
    def origin(self) -> str:
        """Its name in the log."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def wants(self, event: Event) -> bool:
        """Whether the receiver gets this event."""
        job = event.job
        return (
            event.type in self.events
            and fnmatchcase(job.name, self.name)
            and all(job.labels.get(key) == value for key, value in self.labels.items())
        )


def from_tables(tables: object, *, private: bool) -> Iterator[Endpoint]:
    """The endpoints of the `[[webhook]]` in the file. Raises ValueError, which names the table and its key."""
    if not isinstance(tables, list):
        raise ValueError("webhooks must be tables: write [[webhook]] above each url")
    for number, table in enumerate(tables, 1):
        try:
            if not isinstance(table, dict):
                raise ValueError("must be a table: write [[webhook]] above each url")
            yield _from_table(table, private)
        except ValueError as error:
            raise ValueError(f"webhook, number {number}: {error}") from None


def _from_table(table: Mapping[str, object], private: bool) -> Endpoint:
    for key in table:
        if key not in TABLE_KEYS:
            raise ValueError(f"unknown key {key!r}; there are {', '.join(sorted(TABLE_KEYS))}")
    name, labels = table.get("name", "*"), table.get("labels", {})
    if not isinstance(name, str):
        raise ValueError("name must be a text: the name of a job, or a pattern such as 'Import *'")
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise ValueError("labels must be a table of texts, for example {kind = 'import'}")
    return Endpoint(
        url=checked_url(table.get("url"), private=private),
        secrets=_secrets(table),
        events=_events(table.get("events", list(EventType))),
        name=name,
        labels=labels,
    )


def _events(given: object) -> frozenset[EventType]:
    known = ", ".join(EventType)
    if not isinstance(given, list) or not given:
        raise ValueError(f"events must be a list of some of {known}")
    try:
        return frozenset(EventType(event) for event in given)
    except ValueError:
        raise ValueError(f"events must be among {known}") from None


def _secrets(table: Mapping[str, object]) -> tuple[bytes, ...]:
    match table:
        case {"secret": _, "secret_file": _}:
            raise ValueError("secret and secret_file exclude each other")
        case {"secret": str(text)}:
            return parse_secrets(text, "secret")
        case {"secret_file": str(path)}:
            try:
                text = regular_files.read_text(Path(path), SECRET_FILE_BYTES_MAX)
            except OSError as error:
                raise ValueError(f"secret_file {path} cannot be read: {error.strerror}") from None
            except ValueError as error:
                raise ValueError(f"secret_file {path} {error}") from None
            return parse_secrets(text, f"secret_file {path}")
        case _:
            raise ValueError("needs a secret or a secret_file, because webhooks are signed; " + HOW_TO_SIGN)


HOW_TO_SIGN = 'make one with: echo "whsec_$(openssl rand -base64 32)"'


def parse_secrets(text: str, where: str) -> tuple[bytes, ...]:
    """The secrets in a text: one, or several with white space between them. Raises ValueError."""
    secrets = []
    for word in text.split():
        try:
            secret = base64.b64decode(word.removeprefix(SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if not word.startswith(SECRET_PREFIX) or len(secret) not in SECRET_BYTES:
            raise ValueError(f"{where} must be whsec_ and 24 to 64 bytes in base64; {HOW_TO_SIGN}")
        secrets.append(secret)
    if not secrets:
        raise ValueError(f"{where} is empty; {HOW_TO_SIGN}")
    return tuple(secrets)


def checked_url(url: object, *, private: bool) -> str:
    """Check the URL of a receiver. `private`: it may be on this machine or its own network. Raises ValueError.

    The addresses of a name are checked when something is sent.
    """
    if not isinstance(url, str) or not url:
        raise ValueError("url must be the address of a receiver, for example https://example.org/hook")
    if not re.fullmatch(r"[!-~]+", url):
        raise ValueError("url must consist of printable ASCII: write other characters as %XX, and names as xn--…")
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("url is not a URL; write, for example, https://example.org/hook") from None
    if parts.scheme not in ("https", "http") or not host:
        raise ValueError("url must begin with https://, and name a host")
    if parts.scheme == "http" and not private:
        raise ValueError("url must begin with https://; http:// needs --allow-private-webhooks")
    if "@" in parts.netloc or parts.fragment:
        raise ValueError("url must have neither a user name nor a fragment")
    _check_host(host.rstrip("."), private)
    return url


def _check_host(host: str, private: bool) -> None:
    local = host == "localhost" or host.endswith(".localhost")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not is_host(host):
            raise ValueError("url must name a host, for example https://example.org/hook") from None
        reachable = private or not local
    else:
        reachable = may_reach(address, private=private)
    if not reachable and private:
        raise ValueError("url has a host to which webhooks are never sent")
    if not reachable:
        raise ValueError("url is on this machine or its own network, which needs --allow-private-webhooks")


def check_distinct(endpoints: Sequence[Endpoint]) -> None:
    """Raises ValueError if two endpoints have the same URL: they would share their waiting webhooks."""
    if len({endpoint.url for endpoint in endpoints}) < len(endpoints):
        raise ValueError("two webhooks have the same url; give one of them another query such as ?a")
