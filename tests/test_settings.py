"""Settings: one place, three sources, clear refusals."""

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest

from headway_server.domain.change import EventType
from headway_server.domain.limits import MICROSECONDS, Limits
from headway_server.settings import _names, read
from headway_server.storage.database import StartError


def test_defaults_need_nothing() -> None:
    settings = read([], {})
    assert (settings.listen, settings.http) == ("127.0.0.1:50051", "127.0.0.1:8080")
    assert settings.database.startswith("sqlite:///")
    assert settings.limits.session_jobs == 10_000


def test_a_flag_wins_over_a_variable_and_that_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "headway.toml"
    config.write_text('retention = "1d"\nabandon_after = "2d"\nmax_parts = 3\n')
    environment = {"HEADWAY_RETENTION": "3h", "HEADWAY_ABANDON_AFTER": "4h"}
    settings = read(["--config", str(config), "--retention", "90s"], environment)
    assert settings.retention == 90 * MICROSECONDS
    assert settings.abandon_after == 4 * 3600 * MICROSECONDS
    assert settings.limits.parts == 3


@pytest.mark.parametrize(
    ("arguments", "environment", "blamed"),
    [
        (["--listen", "nowhere"], {}, "--listen must be host:port"),
        (["--listen", "127.0.0.1:70000"], {}, "--listen must be host:port"),
        (["--listen", "0.0.0.0:50051"], {}, "--insecure"),
        (["--listen", "[::]:50051"], {}, "--insecure"),
        ([], {"HEADWAY_LISTEN": "example.org:1"}, "--insecure"),
        (["--http", "nowhere"], {}, "--http must be host:port"),
        (["--http", "0.0.0.0:8080"], {}, "--http: .*--insecure"),
        ([], {"HEADWAY_HTTP": "example.org:80"}, "--http: .*--insecure"),
        (["--http-hosts", "example.org:80"], {}, "--http-hosts must be names of hosts"),
        (["--http-hosts", "*"], {}, "--http-hosts must be names of hosts"),
        (["--http-origins", "example.org"], {}, "--http-origins must be origins"),
        (["--http-origins", "*"], {}, "--http-origins must be origins"),
        (["--http-origins", "https://example.org/"], {}, "--http-origins must be origins"),
        (["--http-origins", "https://a; script-src *"], {}, "--http-origins must be origins"),
        ([], {"HEADWAY_RETENTION": "soon"}, "HEADWAY_RETENTION must be a time"),
        (["--abandon-after", "0"], {}, "--abandon-after must be more than 0"),
        (["--max-parts", "0"], {}, "--max-parts must be 1 or more"),
        (["--log", "xml"], {}, "--log must be text or json"),
        (["--config", "/does/not/exist"], {}, "cannot be read"),
    ],
)
def test_a_bad_setting_is_named(arguments: list[str], environment: dict[str, str], blamed: str) -> None:
    with pytest.raises(StartError, match=blamed) as caught:
        read(arguments, environment)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["listen = [", "unknown = 1", "listen = [1]", "\xff"])
def test_a_bad_file_is_named(tmp_path: Path, content: str) -> None:
    config = tmp_path / "headway.toml"
    config.write_text(content, encoding="latin-1")
    with pytest.raises(StartError, match=r"headway\.toml"):
        read(["--config", str(config)], {})


def test_the_http_port_can_be_left_out_and_named() -> None:
    assert read(["--http", ""], {}).http == ""
    assert read([], {"HEADWAY_HTTP": ""}).http == ""
    settings = read(["--http-hosts", "A.example, [fe80::1]", "--http-origins", "https://a.example:8443,http://b"], {})
    assert settings.http_hosts == ("a.example", "[fe80::1]")
    assert settings.http_origins == ("https://a.example:8443", "http://b")


def test_insecure_by_name_opens_other_addresses() -> None:
    assert read(["--listen", "0.0.0.0:50051", "--insecure"], {}).insecure


def test_help_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read(["--help"], {})
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for flag in (
        "--listen",
        "--http",
        "--http-hosts",
        "--http-origins",
        "--database",
        "--session-key",
        "--retention",
        "--max-session-jobs",
        "--config",
    ):
        assert flag in text


def test_an_unknown_flag_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read(["--lisen", "x"], {})
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def test_who_is_told_of_what_stands_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    config = tmp_path / "headway.toml"
    config.write_text(
        f"""
        [[webhook]]
        url = "https://one.example/hook?key=1"
        secret = "{SECRET}"
        events = ["failed", "lost"]
        name = "Import *"
        labels = {{ kind = "import" }}

        [[webhook]]
        url = "https://two.example"
        secret_file = "{tmp_path / "secret"}"
        """
    )
    environment = {"HEADWAY_WEBHOOK_URL": "https://three.example", "HEADWAY_WEBHOOK_SECRET": SECRET}
    settings = read(["--config", str(config)], environment)
    one, two, three = settings.webhooks
    assert (one.origin, one.name, one.labels) == ("https://one.example", "Import *", {"kind": "import"})
    assert one.events == frozenset({EventType.FAILED, EventType.LOST})
    assert two.secrets == three.secrets == (b"0123456789abcdef0123456789abcdef",)
    assert len(two.events) == len(three.events) == 5
    assert "key=1" not in repr(settings)
    assert "whsec_" not in repr(settings)
    assert "0123456789abcdef" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "blamed"),
    [
        ("file:///etc/passwd", "must begin with https://"),
        ("ftp://example.org/", "must begin with https://"),
        ("gopher://example.org/", "must begin with https://"),
        ("example.org/hook", "must begin with https://"),
        ("https://", "must begin with https://"),
        ("http://example.org/", "--allow-private-webhooks"),
        ("https://localhost/", "--allow-private-webhooks"),
        ("https://a.localhost.:1/", "--allow-private-webhooks"),
        ("https://127.0.0.1/", "--allow-private-webhooks"),
        ("https://[::1]/", "--allow-private-webhooks"),
        ("https://[::ffff:10.0.0.1]/", "--allow-private-webhooks"),
        ("https://10.0.0.1/", "--allow-private-webhooks"),
        ("https://169.254.169.254/latest/meta-data/", "--allow-private-webhooks"),
        ("https://example.org:99999/", "not a URL"),
        ("https://[/", "not a URL"),
        ("https://user:pass@example.org/", "user name"),
        ("https://example.org/#x", "fragment"),
        ("https://bücher.example/", "printable ASCII"),
        ("https://example.org/a b", "printable ASCII"),
        ("https://example.org/\r\nX-Evil: 1", "control characters"),
    ],
)
def test_a_receiver_that_cannot_be_is_named(url: str, blamed: str) -> None:
    with pytest.raises(StartError, match="--webhook-url:? .*" + re.escape(blamed)) as caught:
        read(["--webhook-url", url, "--webhook-secret", SECRET], {})
    assert "\n" not in str(caught.value)


def test_some_addresses_are_never_told_anything() -> None:
    with pytest.raises(StartError, match="never sent"):
        read(
            ["--webhook-url", "http://169.254.169.254/", "--webhook-secret", SECRET, "--allow-private-webhooks"],
            {},
        )


@pytest.mark.parametrize(
    "secret",
    ["", "secret", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "whsec_c2hvcnQ=", "whsec_%%%", "whsec_" + "A" * 100],
)
def test_webhooks_need_a_good_secret_which_is_not_repeated(secret: str) -> None:
    with pytest.raises(StartError, match="--webhook-secret") as caught:
        read(["--webhook-url", "https://example.org/"], {"HEADWAY_WEBHOOK_SECRET": secret})
    assert "openssl rand" in str(caught.value)
    assert not secret.removeprefix("whsec_") or secret.removeprefix("whsec_") not in str(caught.value).replace(
        "--webhook-secret", ""
    )


@pytest.mark.parametrize(
    ("table", "blamed"),
    [
        ("", "url must be"),
        ("url = 7", "url must be"),
        ('url = "https://example.org/"', "secret or a secret_file"),
        (f'url = "https://example.org/"\nsecret = "{SECRET}"\nsecret_file = "x"', "exclude each other"),
        ('url = "https://example.org/"\nsecret_file = "/does/not/exist"', "cannot be read"),
        (f'secret = "{SECRET}"\nurl = "https://example.org/"\nevents = ["ended"]', "completed, failed"),
        (f'secret = "{SECRET}"\nurl = "https://example.org/"\nevents = []', "events must be a list"),
        (f'secret = "{SECRET}"\nurl = "https://example.org/"\nevents = [["failed"]]', "events must be"),
        (f'secret = "{SECRET}"\nurl = "https://example.org/"\nlabels = {{ kind = 1 }}', "labels must be"),
        (f'secret = "{SECRET}"\nurl = "https://example.org/"\nname = 1', "name must be"),
        ('uri = "https://example.org/"', "unknown key 'uri'"),
    ],
)
def test_a_bad_table_of_webhooks_is_named(tmp_path: Path, table: str, blamed: str) -> None:
    config = tmp_path / "headway.toml"
    config.write_text(f"[[webhook]]\n{table}\n")
    with pytest.raises(StartError, match="webhook, number 1: .*" + re.escape(blamed)) as caught:
        read(["--config", str(config)], {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["webhook = 1", "webhook = ['https://example.org/']", "[webhook]\nurl = 'x'"])
def test_webhooks_that_are_no_tables_are_named(tmp_path: Path, content: str) -> None:
    config = tmp_path / "headway.toml"
    config.write_text(content)
    with pytest.raises(StartError, match=r"\[\[webhook\]\]"):
        read(["--config", str(config)], {})


def test_a_receiver_is_named_once(tmp_path: Path) -> None:
    config = tmp_path / "headway.toml"
    config.write_text(f'[[webhook]]\nurl = "https://example.org/"\nsecret = "{SECRET}"\n' * 2)
    with pytest.raises(StartError, match="the same url"):
        read(["--config", str(config)], {})


FLAGS = sorted(name for name in _names())

NASTY = (
    "",
    " ",
    "0",
    "-1",
    "-" + "9" * 400,
    "1" + "0" * 30,
    "9" * 400 + "d",
    "9" * 5000,
    "1." + "9" * 400 + "s",
    "1e400",
    "nan",
    "٣",
    "1_0",
    "true",
    "x" * 100_000,
    "x\ny",
    "x\0y",
    "\x1b[2J",
    "\udcff",
    "\U0001f600",
    "a..b:1",
    "a" * 64 + ".example:1",
    "-a:1",
    "[::1",
    "[::1%]:1",
    "::1:1",
    "127.0.0.1:٣",
    "127.0.0.1:00000000001",
    "https://a..b",
    "http://[::1",
    "http://a:99999",
    "whsec_",
    "@",
    "@/dev/zero",
    "@/dev/null",
    "@/",
    "@/does/not/exist",
    "@~nobody-of-that-name/x",
    "sqlite:///",
    "sqlite:////" + "x" * 5000,
    "postgresql://[::1/x",
    "postgresql://u:p@w@h/x",
    "%s%n{0}",
    "'; DROP TABLE job; --",
)


@pytest.mark.parametrize("name", FLAGS)
def test_a_nasty_value_of_any_setting_is_taken_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    """As a flag, as a variable, or in the file, in turn."""
    flag = "--" + name.replace("_", "-")
    config = tmp_path / "headway.toml"
    for turn, value in enumerate(NASTY, FLAGS.index(name)):
        match turn % 3:
            case 0:
                outcome = _outcome([f"{flag}={value}"] if name not in SWITCHES else [flag], {})
            case 1:
                outcome = _outcome([], {f"HEADWAY_{name.upper()}": value})
            case _:
                long_number = value.isascii() and value.isdigit() and value[0] != "0"
                raw = value if long_number else json.dumps(value.encode(errors="replace").decode())
                config.write_text(f"{name} = {raw}\n", encoding="utf-8")
                outcome = _outcome(["--config", str(config)], {})
        assert "\n" not in outcome
        assert len(outcome) < 1100, outcome


SWITCHES = {"insecure", "allow_private_webhooks"}


def _outcome(arguments: list[str], environment: dict[str, str]) -> str:
    """What the server says of these settings; empty: they can be."""
    try:
        settings = read(arguments, environment)
    except StartError as error:
        return str(error)
    spans = (settings.retention, settings.abandon_after, settings.cancel_grace, settings.shutdown_grace)
    assert all(0 <= span <= 3650 * 86_400 * MICROSECONDS for span in (*spans, settings.webhook_lifetime))
    for item in dataclasses.fields(Limits):
        assert 1 <= getattr(settings.limits, item.name) <= item.metadata["most"]
    return ""


@pytest.mark.parametrize(
    ("arguments", "blamed"),
    [
        (["--retention", "9" * 400 + "d"], "--retention must be a time"),
        (["--retention", "9" * 12 + "d"], "--retention must be at most 3650d"),
        (["--max-session-jobs", "1" + "0" * 30], "--max-session-jobs must be at most 100,000,000"),
        (["--max-message-bytes", str(2**31)], "--max-message-bytes must be at most 268,435,456"),
        (["--max-label-value-length", "2000"], "--max-label-value-length must be at most 1,024"),
        (["--max-labels", "1001"], "--max-labels must be at most 1,000"),
        (["--max-label-key-length", "256"], "--max-label-key-length must be at most 255"),
        (["--http", "a..b:1"], "--http must be host:port"),
        (["--listen", "::1:1"], "--listen must be host:port"),
        (["--http-hosts", "a..b"], "--http-hosts must be names"),
        (["--http-origins", "https://a:99999"], "--http-origins must be origins"),
        (["--webhook-url", "https://a..b/x"], "must name a host"),
        (["--session-key", "@/dev/zero"], "--session-key names the file /dev/zero, which is not a regular file"),
        (["--session-key", "@/"], "--session-key names the file /, which is a folder"),
        (["--database", "@/does/not/exist"], "--database names the file /does/not/exist, which cannot be read"),
    ],
)
def test_what_no_server_could_work_with_is_refused(arguments: list[str], blamed: str) -> None:
    with pytest.raises(StartError, match=re.escape(blamed)):
        read(arguments, {})


@pytest.mark.parametrize(
    ("content", "blamed"),
    [
        pytest.param("a = " + "[" * 100_000, "nested too deeply", id="deep lists"),
        pytest.param("a = " + "{a = " * 50_000, "nested too deeply", id="deep tables"),
        pytest.param("a." * 100_000 + "b = 1", "nested too deeply", id="deep keys"),
        pytest.param("x" * 300_000, "is larger than 262,144 bytes", id="long"),
        pytest.param("max_parts = " + "9" * 5000, "headway.toml", id="a long number"),
        pytest.param("max_parts = 0x" + "f" * 5000, "is too large a number", id="a long number in hexadecimal"),
        pytest.param("x" * 200_000 + " = 1", "unknown key", id="a long key"),
        pytest.param('listen = "a\\nb:1"', "control characters", id="a line break"),
    ],
)
def test_a_file_that_would_take_the_start_long_is_refused_in_one_line(
    tmp_path: Path, content: str, blamed: str
) -> None:
    config = tmp_path / "headway.toml"
    config.write_text(content)
    with pytest.raises(StartError, match=re.escape(blamed)) as caught:
        read(["--config", str(config)], {})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1100


@pytest.mark.parametrize("kind", ["/dev/zero", "a pipe", "a folder", "a gigabyte"])
def test_what_is_no_file_of_settings_is_not_read(tmp_path: Path, kind: str) -> None:
    path = Path(kind) if kind.startswith("/") else tmp_path / "config"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a gigabyte":
        with path.open("wb") as file:
            file.truncate(2**30)
    for arguments in (["--config", str(path)], ["--session-key", f"@{path}"]):
        with pytest.raises(StartError, match=r"is not a regular file|is a folder|is larger than"):
            read(arguments, {})


def test_a_secret_can_stand_in_a_file(tmp_path: Path) -> None:
    for name, text in (("url", "postgresql://a:pass@h/db\n"), ("key", "ab" * 32 + "\n"), ("secret", SECRET + "\n")):
        (tmp_path / name).write_text(text)
    environment = {"HEADWAY_SESSION_KEY": f"@{tmp_path / 'key'}", "HEADWAY_WEBHOOK_SECRET": f"@{tmp_path / 'secret'}"}
    arguments = ["--database", f"@{tmp_path / 'url'}", "--webhook-url", "https://example.org/"]
    settings = read(arguments, environment)
    assert settings.database == "postgresql://a:pass@h/db"
    assert settings.session_key == "ab" * 32
    assert settings.webhooks[0].secrets == (b"0123456789abcdef0123456789abcdef",)
    assert settings.warnings == ()
    assert "pass" not in repr(settings)
    assert "abab" not in repr(settings)


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["--database", "postgresql://a:pass@h/db"], "--database"),
        (["--database", "postgresql://a@h/db?password=pass"], "--database"),
        (["--session-key", "ab" * 32], "--session-key"),
        (["--webhook-secret", SECRET], "--webhook-secret"),
    ],
)
def test_a_secret_on_the_command_line_is_warned_of(arguments: list[str], flag: str) -> None:
    (warning,) = read(arguments, {}).warnings
    assert f"use {flag} @FILE" in warning
    assert not any(secret in warning for secret in ("pass@", "=pass", "abab", "whsec_"))
    name, value = arguments
    assert read([], {f"HEADWAY_{name[2:].replace('-', '_').upper()}": value}).warnings == ()


def test_a_url_without_a_password_is_not_warned_of() -> None:
    assert read(["--database", "postgresql://a@h/db"], {}).warnings == ()
    assert read(["--database", "sqlite:///a.db"], {}).warnings == ()


def test_the_earlier_names_of_webhook_settings_still_work(tmp_path: Path) -> None:
    config = tmp_path / "headway.toml"
    config.write_text(f'notice_lifetime = "1d"\n[[notices]]\nurl = "https://one.example/"\nsecret = "{SECRET}"\n')
    environment = {"HEADWAY_NOTICE_SECRET": SECRET, "HEADWAY_NOTICE_SOURCE": "/old", "HEADWAY_WEBHOOK_SOURCE": "/new"}
    arguments = ["--config", str(config), "--notice-url", "https://two.example/", "--max-pending-notices", "7"]
    settings = read([*arguments, "--allow-private-notices"], environment)
    assert {endpoint.url for endpoint in settings.webhooks} == {"https://one.example/", "https://two.example/"}
    assert settings.webhook_lifetime == 86_400 * MICROSECONDS
    assert settings.webhook_source == "/new", "the present name wins"
    assert settings.limits.pending_webhooks == 7
    assert settings.allow_private_webhooks


def test_an_error_blames_the_name_that_was_given() -> None:
    with pytest.raises(StartError, match="--notice-lifetime"):
        read(["--notice-lifetime", "soon"], {})


def test_both_tables_of_webhooks_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "headway.toml"
    table = f'url = "https://{{}}.example/"\nsecret = "{SECRET}"\n'
    config.write_text(f"[[webhook]]\n{table.format('one')}[[notices]]\n{table.format('two')}")
    with pytest.raises(StartError, match="both"):
        read(["--config", str(config)], {})
