"""All settings: flag, variable, key in the file, default and help. No other module reads the environment."""

import argparse
import dataclasses
import ipaddress
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qs, urlsplit

import platformdirs

from headway_server import setting_values as values
from headway_server.domain.limits import MICROSECONDS, Limits
from headway_server.resources import regular_files
from headway_server.setting_values import Raw
from headway_server.storage.database import StartError
from headway_server.webhooks import config as webhook_config
from headway_server.webhooks.config import Endpoint

PREFIX = "HEADWAY_"

CONFIG_BYTES_MAX = 256 * 1024

LINE_DOTS_MAX = 1000
"""The most dots in a line of the file: tomllib needs quadratic time and memory for the parts of a key."""


def _default_database() -> str:
    return f"sqlite:///{platformdirs.user_data_path('headway') / 'headway.db'}"


def _metadata(parse: Callable[[Raw], object], help_text: str, shown: str = "") -> Mapping[str, object]:
    return {"parse": parse, "help": help_text, "default": shown}


SECRETS = ("database", "session_key", "webhook_secret", "webhook_url")
"""Settings that accept `@path`: all users of the machine can read a command line."""

# plain-words: off
OLD_NAMES: Mapping[str, str] = {
    "notice_url": "webhook_url",
    "notice_secret": "webhook_secret",
    "notice_source": "webhook_source",
    "notice_lifetime": "webhook_lifetime",
    "allow_private_notices": "allow_private_webhooks",
    "max_pending_notices": "max_pending_webhooks",
}
"""Earlier names of settings, and the present ones. Flags, variables and keys of the file accept both."""

WEBHOOK_TABLES = ("webhook", "notices")
"""The table of a webhook in the file, and its earlier name."""
# plain-words: on


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings; spans are in µs. Each field is a flag, a HEADWAY_ variable and a key of the file."""

    listen: str = field(
        default="127.0.0.1:50051",
        metadata=_metadata(values.address, "address of the gRPC port, host:port", "127.0.0.1:50051"),
    )
    http: str = field(
        default="127.0.0.1:8080",
        metadata=_metadata(
            values.address_or_none,
            "address of the HTTP port for the page and JSON, host:port; empty: no HTTP port",
            "127.0.0.1:8080",
        ),
    )
    http_hosts: tuple[str, ...] = field(
        default=(),
        metadata=_metadata(
            values.hosts,
            "further host names of the HTTP port, separated by commas",
            "the loopback names, and the host of --http",
        ),
    )
    http_origins: tuple[str, ...] = field(
        default=(),
        metadata=_metadata(
            values.origins,
            "origins whose pages may call the HTTP port and embed <headway-job>, separated by commas",
            "none",
        ),
    )
    database: str = field(
        default_factory=_default_database,
        repr=False,
        metadata=_metadata(
            values.text,
            "sqlite:///path or postgresql://user@host/name; with a password: @FILE, a file that holds the URL",
            "a SQLite file in your data folder",
        ),
    )
    session_key: str = field(
        default="",
        repr=False,
        metadata=_metadata(
            values.text,
            "@FILE with 64 hex digits, the key for hashing session ids; the same for all servers of a database",
            "a file made beside the database",
        ),
    )
    insecure: bool = field(
        default=False,
        metadata=_metadata(
            values.switch, "serve without TLS and authentication on an address that others can reach", "off"
        ),
    )
    retention: int = field(
        default=30 * 86_400 * MICROSECONDS,
        metadata=_metadata(
            values.positive_span, "how long an ended job is kept, unless the job has its own retention", "30d"
        ),
    )
    abandon_after: int = field(
        default=30 * 86_400 * MICROSECONDS,
        metadata=_metadata(values.positive_span, "a job whose worker is silent for this long ends as FAILED", "30d"),
    )
    cancel_grace: int = field(
        default=60 * MICROSECONDS,
        metadata=_metadata(
            values.span, "how long a worker has to end a cancelled job, unless the caller sets it", "60s"
        ),
    )
    shutdown_grace: int = field(
        default=10 * MICROSECONDS,
        metadata=_metadata(values.span, "how long calls may still run after SIGTERM", "10s"),
    )
    longest_poll: int = field(
        default=60 * MICROSECONDS,
        metadata=_metadata(
            values.poll_span, "longest wait of a long poll; keep it below the timeouts of proxies", "60s"
        ),
    )
    stream_heartbeat: int = field(
        default=15 * MICROSECONDS,
        metadata=_metadata(
            values.positive_span,
            "how often an idle watch over HTTP sends an empty message, to keep proxies from closing it",
            "15s",
        ),
    )
    log: str = field(
        default="text",
        metadata=_metadata(
            values.log_format, "format of the log on standard error: text, or json for one object a line", "text"
        ),
    )
    webhook_url: str = field(
        default="",
        metadata=_metadata(
            values.text,
            "URL that gets a webhook when a job ends, is LOST or stalls; the file may have several",
            "none",
        ),
    )
    webhook_secret: str = field(
        default="",
        repr=False,
        metadata=_metadata(
            values.text, "@FILE with whsec_ and base64: the secret that signs webhooks for that URL", "none"
        ),
    )
    webhook_source: str = field(
        default="/headway",
        metadata=_metadata(values.reference, "source of the CloudEvents in webhooks", "/headway"),
    )
    webhook_lifetime: int = field(
        default=3 * 86_400 * MICROSECONDS,
        metadata=_metadata(values.positive_span, "how long a webhook is tried before it is given up", "3d"),
    )
    allow_private_webhooks: bool = field(
        default=False,
        metadata=_metadata(
            values.switch, "allow webhooks to this machine and its own network, and to http:// URLs without TLS", "off"
        ),
    )
    webhooks: tuple[Endpoint, ...] = ()
    """The receivers: webhook_url, and the [[webhook]] tables of the file."""
    limits: Limits = field(default_factory=Limits)
    warnings: tuple[str, ...] = ()
    """Advice for the operator."""

    @property
    def data_folder(self) -> Path:
        """The folder for files that belong to no database."""
        return platformdirs.user_data_path("headway")


def _names() -> dict[str, tuple[Callable[[Raw], object], str, str]]:
    """Every setting by its name: parser, help text, and the default as shown."""
    names = {}
    for item in dataclasses.fields(Settings):
        if item.name not in ("limits", "webhooks", "warnings"):
            names[item.name] = (item.metadata["parse"], item.metadata["help"], item.metadata["default"])
    for item in dataclasses.fields(Limits):
        most = item.metadata["most"]
        text = f"limit: {item.metadata['help']}, at most {most:,}"
        names[f"max_{item.name}"] = (values.number(most), text, f"{item.default:,}")
    return names


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"headway serve: {StartError(message)}; see headway serve --help\n")


def read(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings. A flag wins over a variable, a variable over the file, the file over the default.

    Raises StartError for an invalid value. Exits with 2 for an unknown flag, with 0 after --help.
    """
    parser = _Parser(
        prog="headway serve",
        description="Serve jobs over gRPC and HTTP.",
        epilog="Every flag is also a variable (--listen is HEADWAY_LISTEN) and a key of the --config file "
        '(listen = "…"). A flag wins over a variable, a variable over the file. For --database, --session-key, '
        "--webhook-url and --webhook-secret, @FILE means the content of that file.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings")
    names = _names()
    old_names = {new: old for old, new in OLD_NAMES.items()}
    for name, (parse, help_text, default) in names.items():
        shown = f"{help_text} (default: {default})".replace("%", "%%")
        _add_flag(parser, name, shown, is_switch=parse is values.switch)
        if name in old_names:
            _add_flag(parser, old_names[name], argparse.SUPPRESS, is_switch=parse is values.switch)
    given = vars(parser.parse_args(arguments))
    config = given.pop("config") or environment.get(f"{PREFIX}CONFIG")
    found: dict[str, object] = {}
    warnings: list[str] = []
    of_file, tables = _read_file(config, names) if config else ({}, [])
    # Old names first, so that the present name wins where both are given.
    written = (*OLD_NAMES, *names)
    of_environment = {n: environment[PREFIX + n.upper()] for n in written if PREFIX + n.upper() in environment}
    for source, raws in (("the file", of_file), ("variable", of_environment), ("flag", given)):
        for name_given in written:
            raw = raws.get(name_given)
            if raw is None:
                continue
            name = OLD_NAMES.get(name_given, name_given)
            label = _label(source, name_given, config)
            try:
                found[name] = _parse(name, raw, names[name][0])
            except ValueError as error:
                raise StartError(f"{label} {error}") from None
            if source == "flag" and _shows_secret(name, raw):
                warnings.append(
                    f"every user of this machine can read {label} in the list of processes; use {label} @FILE"
                )
    limits = Limits(**{n.removeprefix("max_"): v for n, v in found.items() if n.startswith("max_")})  # type: ignore[arg-type]
    settings = Settings(**{n: v for n, v in found.items() if not n.startswith("max_")}, limits=limits)  # type: ignore[arg-type]
    _check_reach(settings)
    return dataclasses.replace(settings, webhooks=_webhooks(settings, tables, config), warnings=tuple(warnings))


def _add_flag(parser: argparse.ArgumentParser, name: str, help_text: str, *, is_switch: bool) -> None:
    flag = "--" + name.replace("_", "-")
    if is_switch:
        parser.add_argument(flag, action="store_const", const="true", help=help_text)
    else:
        parser.add_argument(flag, metavar="VALUE", help=help_text)


def _parse(name: str, raw: Raw, parse: Callable[[Raw], object]) -> object:
    raw = values.checked(raw)
    return parse(values.checked(values.secret(raw)) if name in SECRETS else raw)


def _shows_secret(name: str, raw: Raw) -> bool:
    """Whether this value of a setting is a secret itself, and not the path of a file."""
    if name not in SECRETS or str(raw).startswith("@"):
        return False
    if name not in ("database", "webhook_url"):
        return True
    try:
        parts = urlsplit(str(raw))
        return parts.password is not None or "password" in parse_qs(parts.query)
    except ValueError:
        return False


def _webhooks(settings: Settings, tables: object, config: str | None) -> tuple[Endpoint, ...]:
    try:
        found = list(webhook_config.from_tables(tables, private=settings.allow_private_webhooks))
    except ValueError as error:
        raise StartError(f"--config: {config}: {error}") from None
    try:
        if settings.webhook_url:
            url = webhook_config.checked_url(settings.webhook_url, private=settings.allow_private_webhooks)
            found.append(Endpoint(url, webhook_config.parse_secrets(settings.webhook_secret, "--webhook-secret")))
        webhook_config.check_distinct(found)
    except ValueError as error:
        raise StartError(f"--webhook-url: {error}") from None
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
    """The settings in a file, and its tables of webhooks. Raises StartError."""
    try:
        text = regular_files.read_text(Path(path), CONFIG_BYTES_MAX)
        if any(line.count(".") > LINE_DOTS_MAX for line in text.splitlines()):
            raise RecursionError
        content = tomllib.loads(text)
    except OSError as error:
        raise StartError(f"--config: {path} cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise StartError(f"--config: {path} is not TOML: {error}") from None
    except RecursionError:
        raise StartError(f"--config: {path} is nested too deeply") from None
    except ValueError as error:
        raise StartError(f"--config: {path} {error}") from None
    tables = [content.pop(name) for name in WEBHOOK_TABLES if name in content]
    if len(tables) > 1:
        raise StartError(f"--config: {path} has both [[webhook]] and [[notices]]; write [[webhook]] alone")
    for name, value in content.items():
        if name not in names and name not in OLD_NAMES:
            raise StartError(f"--config: {path} has the unknown key {name!r}; see headway serve --help")
        if not isinstance(value, str | int | bool):
            raise StartError(f"--config: {path}: {name} must be a text, a number or true/false")
    return content, tables[0] if tables else []


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach `host:port`."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_reach(settings: Settings) -> None:
    for flag, address in (("--listen", settings.listen), ("--http", settings.http)):
        if address and not is_loopback(address) and not settings.insecure:
            raise StartError(
                f"{flag}: other machines can reach {address}, and this server has neither TLS nor "
                "authentication; listen on 127.0.0.1, or accept that with --insecure"
            )


def from_process(arguments: Sequence[str]) -> Settings:
    """The settings of this process."""
    return read(arguments, os.environ)
