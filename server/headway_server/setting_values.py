"""Parsers for the values of settings: from a text, a number or true/false to what the server uses.

Every parser checks a range. It raises ValueError with a sentence that continues after the name of the setting.
"""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from headway_server.domain.limits import DURATION_MAX, MICROSECONDS
from headway_server.resources import regular_files
from headway_server.webhooks.address_policy import is_host

Raw = str | int | bool

TEXT_MAX = 8192
"""The longest value of a setting, in characters."""

SECRET_FILE_BYTES_MAX = 8192

NUMBER_MAX = 2**63 - 1

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def checked(raw: Raw) -> Raw:
    """Check what applies to every setting. Returns the value."""
    if isinstance(raw, str):
        if len(raw) > TEXT_MAX:
            raise ValueError(f"must be at most {TEXT_MAX:,} characters long")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in raw):
            raise ValueError("must be text in UTF-8, without control characters")
    elif abs(raw) > NUMBER_MAX:
        raise ValueError("is too large a number")
    return raw


def secret(raw: Raw) -> Raw:
    """The value of a secret. `@path` is read from that file."""
    if not isinstance(raw, str) or not raw.startswith("@"):
        return raw
    path = raw.removeprefix("@")
    try:
        text = regular_files.read_text(Path(path).expanduser(), SECRET_FILE_BYTES_MAX)
    except OSError as error:
        raise ValueError(f"names the file {path}, which cannot be read: {error.strerror}") from None
    except RuntimeError:
        raise ValueError(f"names the file {path}, whose user has no home") from None
    except ValueError as error:
        raise ValueError(f"names the file {path}, which {error}") from None
    words = " ".join(text.split())
    if not words:
        raise ValueError(f"names the file {path}, which is empty")
    return words


def span(text: Raw) -> int:
    """Microseconds of `90`, `90s`, `5m`, `2h` or `30d`."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([smhd]?)", str(text).strip(), re.ASCII)
    if not match:
        raise ValueError("must be a time such as 90s, 5m, 2h or 30d")
    length = int(float(match[1]) * _UNITS[match[2]] * MICROSECONDS)
    if length > DURATION_MAX:
        raise ValueError("must be at most 3650d")
    return length


def positive_span(text: Raw) -> int:
    """As `span`, but greater than 0, which would end every job at once."""
    length = span(text)
    if length == 0:
        raise ValueError("must be more than 0")
    return length


def poll_span(text: Raw) -> int:
    """As `positive_span`, up to a minute: callers rely on this limit."""
    length = positive_span(text)
    if length > 60 * MICROSECONDS:
        raise ValueError("must be at most 60s")
    return length


def switch(text: Raw) -> bool:
    """True for `1`, `true`, `yes` and `on`; False for an empty text, `0`, `false`, `no` and `off`."""
    words = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("", "0", "false", "no", "off"), False)
    try:
        return words[str(text).strip().lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


def number(most: int) -> Callable[[Raw], int]:
    """A parser of whole numbers from 1 to `most`."""

    def parse(text: Raw) -> int:
        match = re.fullmatch(r"-?\d+", str(text).strip(), re.ASCII)
        if not match:
            raise ValueError("must be a whole number")
        # Do not convert very long numbers.
        value = int(match[0]) if len(match[0]) <= len(str(NUMBER_MAX)) else NUMBER_MAX
        if match[0].startswith("-") or value < 1:
            raise ValueError("must be 1 or more")
        if value > most:
            raise ValueError(f"must be at most {most:,}")
        return value

    return parse


def address(text: Raw) -> str:
    """`host:port`. Port 0 lets the system choose a port."""
    host, separator, port = str(text).rpartition(":")
    if not separator or not is_host(host) or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > 65_535:
        raise ValueError("must be host:port with a port from 0 to 65535, for example 127.0.0.1:50051 or [::1]:50051")
    return str(text)


def address_or_none(text: Raw) -> str:
    """As `address`, or an empty text."""
    return address(text) if text != "" else ""


def hosts(text: Raw) -> tuple[str, ...]:
    """Names of hosts, separated by commas."""
    names = tuple(name.strip().lower() for name in str(text).split(",") if name.strip())
    for name in names:
        if not is_host(name):
            raise ValueError("must be names of hosts without ports, for example headway.example.org,10.0.0.5")
    return names


def origins(text: Raw) -> tuple[str, ...]:
    """Origins of pages, separated by commas."""
    names = tuple(name.strip().lower() for name in str(text).split(",") if name.strip())
    for name in names:
        match = re.fullmatch(r"https?://([^/:\[\]]+|\[[^/\[\]]+\])(?::(\d{1,5}))?", name, re.ASCII)
        if not match or not is_host(match[1]) or int(match[2] or 0) > 65_535:
            raise ValueError("must be origins, for example https://staff.example.org,http://intranet:8000")
    return names


def log_format(text: Raw) -> str:
    """`text` or `json`."""
    if text not in ("text", "json"):
        raise ValueError("must be text or json")
    return str(text)


def text(value: Raw) -> str:
    """Any text."""
    return str(value)


def reference(value: Raw) -> str:
    """A URI or a path: printable ASCII."""
    if not re.fullmatch(r"[!-~]+", str(value)):
        raise ValueError("must be a URI or a path, for example /headway")
    return str(value)
