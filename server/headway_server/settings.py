"""Every setting, once: flag, variable, key in the file, default and a sentence. Nobody else reads the environment."""

import argparse
import dataclasses
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import platformdirs

from headway_server import endpoints
from headway_server.database import StartError
from headway_server.endpoints import Endpoint
from headway_server.limits import DURATION_MAX, MICROSECONDS, Limits

PREFIX = "HEADWAY_"

Raw = str | int | bool

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def span(text: Raw) -> int:
    """Microseconds of `90`, `90s`, `5m`, `2h` or `30d`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(text).strip())
    if not match:
        raise ValueError("must be a time such as 90s, 5m, 2h or 30d")
    length = int(float(match[1]) * _UNITS[match[2]] * MICROSECONDS)
    if length > DURATION_MAX:
        raise ValueError("must be at most 3650d")
    return length


def positive_span(text: Raw) -> int:
    """As `span`, but not 0: it would end every job at once."""
    length = span(text)
    if length == 0:
        raise ValueError("must be more than 0")
    return length


def switch(text: Raw) -> bool:
    """True of `1`, `true`, `yes` and `on`."""
    words = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("", "0", "false", "no", "off"), False)
    try:
        return words[str(text).strip().lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


def number(text: Raw) -> int:
    """A whole number above 0."""
    try:
        value = int(str(text))
    except ValueError:
        raise ValueError("must be a whole number") from None
    if value < 1:
        raise ValueError("must be 1 or more")
    return value


def address(text: Raw) -> str:
    """`host:port`; port 0 lets the system choose one."""
    host, separator, port = str(text).rpartition(":")
    if not separator or not host or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > 65_535:
        raise ValueError("must be host:port with a port from 0 to 65535, for example 127.0.0.1:50051")
    return str(text)


def address_or_none(text: Raw) -> str:
    """As `address`, or empty."""
    return address(text) if text != "" else ""


def hosts(text: Raw) -> tuple[str, ...]:
    """Names of hosts, with commas between them."""
    names = tuple(name.strip().lower() for name in str(text).split(",") if name.strip())
    for name in names:
        if not re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", name):
            raise ValueError("must be names of hosts without ports, for example headway.example.org,10.0.0.5")
    return names


def origins(text: Raw) -> tuple[str, ...]:
    """Origins of pages, with commas between them."""
    names = tuple(name.strip().lower() for name in str(text).split(",") if name.strip())
    for name in names:
        if not re.fullmatch(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", name):
            raise ValueError("must be origins, for example https://staff.example.org,http://intranet:8000")
    return names


def log_format(text: Raw) -> str:
    """`text` or `json`."""
    if text not in ("text", "json"):
        raise ValueError("must be text or json")
    return str(text)


def _default_database() -> str:
    return f"sqlite:///{platformdirs.user_data_path('headway') / 'headway.db'}"


def text(value: Raw) -> str:
    """Any text."""
    return str(value)


def reference(value: Raw) -> str:
    """A URI, or what could stand in one."""
    if not re.fullmatch(r"[!-~]+", str(value)):
        raise ValueError("must be a URI or a path, for example /headway")
    return str(value)


def _metadata(parse: Callable[[Raw], object], help_text: str, shown: str = "") -> Mapping[str, object]:
    return {"parse": parse, "help": help_text, "default": shown}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator has set; spans in µs. Each field is a flag, a HEADWAY_ variable and a key of the file."""

    listen: str = field(
        default="127.0.0.1:50051",
        metadata=_metadata(address, "address of the gRPC port, host:port", "127.0.0.1:50051"),
    )
    http: str = field(
        default="127.0.0.1:8080",
        metadata=_metadata(
            address_or_none, "address of the page and of JSON over HTTP, host:port; empty: neither", "127.0.0.1:8080"
        ),
    )
    http_hosts: tuple[str, ...] = field(
        default=(),
        metadata=_metadata(
            hosts,
            "further host names that the HTTP port is reached by, with commas between them",
            "the loopback names, and the host of --http",
        ),
    )
    http_origins: tuple[str, ...] = field(
        default=(),
        metadata=_metadata(
            origins,
            "origins whose pages may call the HTTP port and embed <headway-job>, with commas between them",
            "none",
        ),
    )
    database: str = field(
        default_factory=_default_database,
        metadata=_metadata(
            text,
            "sqlite:///path or postgresql://user:password@host/name",
            "a SQLite file in your data folder",
        ),
    )
    session_key: str = field(
        default="",
        metadata=_metadata(
            text,
            "64 hex digits that session ids are hashed with; servers that share a database share it",
            "a file made beside the database",
        ),
    )
    insecure: bool = field(
        default=False,
        metadata=_metadata(switch, "serve without TLS and authentication on an address that others can reach", "off"),
    )
    retention: int = field(
        default=30 * 86_400 * MICROSECONDS,
        metadata=_metadata(positive_span, "how long an ended job is kept, unless it says otherwise itself", "30d"),
    )
    abandon_after: int = field(
        default=30 * 86_400 * MICROSECONDS,
        metadata=_metadata(positive_span, "a job without any contact for so long ends as FAILED", "30d"),
    )
    cancel_grace: int = field(
        default=60 * MICROSECONDS,
        metadata=_metadata(span, "how long a worker has to end a cancelled job, unless the caller says", "60s"),
    )
    shutdown_grace: int = field(
        default=10 * MICROSECONDS,
        metadata=_metadata(span, "how long calls may still run after SIGTERM", "10s"),
    )
    log: str = field(
        default="text",
        metadata=_metadata(log_format, "notices on standard error: text, or json for one object a line", "text"),
    )
    notice_url: str = field(
        default="",
        metadata=_metadata(
            text, "receiver of a notice whenever a job ends, is LOST or stalled; the file may name several", "none"
        ),
    )
    notice_secret: str = field(
        default="",
        repr=False,
        metadata=_metadata(text, "whsec_ and base64: what notices to it are signed with", "none"),
    )
    notice_source: str = field(
        default="/headway",
        metadata=_metadata(reference, "source of the CloudEvents that notices are", "/headway"),
    )
    notice_lifetime: int = field(
        default=3 * 86_400 * MICROSECONDS,
        metadata=_metadata(positive_span, "how long a notice is tried before it is given up", "3d"),
    )
    allow_private_notices: bool = field(
        default=False,
        metadata=_metadata(
            switch, "let notices go to this machine and its own network, and without TLS to http:// URLs", "off"
        ),
    )
    notices: tuple[Endpoint, ...] = ()
    """The receivers: notice_url, and the [[notices]] of the file."""
    limits: Limits = field(default_factory=Limits)

    @property
    def data_folder(self) -> Path:
        """Where files go that belong to no database."""
        return platformdirs.user_data_path("headway")


def _names() -> dict[str, tuple[Callable[[Raw], object], str, str]]:
    """Every setting by its name: parser, help, and the default as shown."""
    names = {}
    for item in dataclasses.fields(Settings):
        if item.name not in ("limits", "notices"):
            names[item.name] = (item.metadata["parse"], item.metadata["help"], item.metadata["default"])
    for item in dataclasses.fields(Limits):
        names[f"max_{item.name}"] = (number, f"limit: {item.metadata['help']}", f"{item.default:,}")
    return names


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"headway serve: {message}; see headway serve --help\n")


def read(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings: a flag wins over a variable, a variable over the file, the file over the default.

    Raises StartError for a value that cannot be; exits with 2 for an unknown flag, with 0 after --help.
    """
    parser = _Parser(
        prog="headway serve",
        description="Serve jobs over gRPC and HTTP.",
        epilog="Every flag is also a variable (--listen is HEADWAY_LISTEN) and a key of the --config file "
        '(listen = "…"). A flag wins over a variable, a variable over the file.',
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings")
    names = _names()
    for name, (parse, help_text, default) in names.items():
        flag = "--" + name.replace("_", "-")
        shown = f"{help_text} (default: {default})".replace("%", "%%")
        if parse is switch:
            parser.add_argument(flag, action="store_const", const="true", help=shown)
        else:
            parser.add_argument(flag, metavar="VALUE", help=shown)
    given = vars(parser.parse_args(arguments))
    config = given.pop("config") or environment.get(f"{PREFIX}CONFIG")
    values: dict[str, object] = {}
    of_file, tables = _read_file(config, names) if config else ({}, [])
    for source, raws in (
        ("the file", of_file),
        (
            "variable",
            {n: environment[PREFIX + n.upper()] for n in names if PREFIX + n.upper() in environment},
        ),
        ("flag", {name: raw for name, raw in given.items() if raw is not None}),
    ):
        for name, raw in raws.items():
            try:
                values[name] = names[name][0](raw)
            except ValueError as error:
                raise StartError(f"{_label(source, name, config)} {error}") from None
    limits = Limits(**{n.removeprefix("max_"): v for n, v in values.items() if n.startswith("max_")})  # type: ignore[arg-type]
    settings = Settings(**{n: v for n, v in values.items() if not n.startswith("max_")}, limits=limits)  # type: ignore[arg-type]
    _check_reach(settings)
    return dataclasses.replace(settings, notices=_notices(settings, tables, config))


def _notices(settings: Settings, tables: object, config: str | None) -> tuple[Endpoint, ...]:
    try:
        found = list(endpoints.from_tables(tables, private=settings.allow_private_notices))
    except ValueError as error:
        raise StartError(f"--config: {config}: {error}") from None
    try:
        if settings.notice_url:
            url = endpoints.checked_url(settings.notice_url, private=settings.allow_private_notices)
            found.append(Endpoint(url, endpoints.parse_secrets(settings.notice_secret, "--notice-secret")))
        endpoints.check_distinct(found)
    except ValueError as error:
        raise StartError(f"--notice-url: {error}") from None
    return tuple(found)


def _label(source: str, name: str, config: str | None) -> str:
    match source:
        case "flag":
            return "--" + name.replace("_", "-")
        case "variable":
            return PREFIX + name.upper()
        case _:
            return f"{config}: {name}"


def _read_file(path: str, names: Mapping[str, object]) -> tuple[dict[str, Raw], object]:
    """The settings in a file, and its tables of notices."""
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise StartError(f"--config: {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"--config: {path} is not TOML: {error}") from None
    notices = content.pop("notices", [])
    for name, value in content.items():
        if name not in names:
            raise StartError(f"--config: {path} has the unknown key {name!r}; see headway serve --help")
        if not isinstance(value, str | int | bool):
            raise StartError(f"--config: {path}: {name} must be a text, a number or true/false")
    return content, notices


def is_loopback(address: str) -> bool:
    """Whether this machine alone reaches `host:port`."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_reach(settings: Settings) -> None:
    for flag, address in (("--listen", settings.listen), ("--http", settings.http)):
        if address and not is_loopback(address) and not settings.insecure:
            raise StartError(
                f"{flag}: {address} can be reached from elsewhere, and this server has neither TLS nor "
                "authentication; listen on 127.0.0.1, or accept that with --insecure"
            )


def from_process(arguments: Sequence[str]) -> Settings:
    """The settings of this process."""
    return read(arguments, os.environ)
