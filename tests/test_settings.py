"""Settings: one place, three sources, clear refusals."""

import re
from pathlib import Path

import pytest

from headway_server.change import Event
from headway_server.database import StartError
from headway_server.limits import MICROSECONDS
from headway_server.settings import read


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
        [[notices]]
        url = "https://one.example/hook?key=1"
        secret = "{SECRET}"
        events = ["failed", "lost"]
        name = "Import *"
        labels = {{ kind = "import" }}

        [[notices]]
        url = "https://two.example"
        secret_file = "{tmp_path / "secret"}"
        """
    )
    environment = {"HEADWAY_NOTICE_URL": "https://three.example", "HEADWAY_NOTICE_SECRET": SECRET}
    settings = read(["--config", str(config)], environment)
    one, two, three = settings.notices
    assert (one.origin, one.name, one.labels) == ("https://one.example", "Import *", {"kind": "import"})
    assert one.events == frozenset({Event.FAILED, Event.LOST})
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
        ("http://example.org/", "--allow-private-notices"),
        ("https://localhost/", "--allow-private-notices"),
        ("https://a.localhost.:1/", "--allow-private-notices"),
        ("https://127.0.0.1/", "--allow-private-notices"),
        ("https://[::1]/", "--allow-private-notices"),
        ("https://[::ffff:10.0.0.1]/", "--allow-private-notices"),
        ("https://10.0.0.1/", "--allow-private-notices"),
        ("https://169.254.169.254/latest/meta-data/", "--allow-private-notices"),
        ("https://example.org:99999/", "not a URL"),
        ("https://[/", "not a URL"),
        ("https://user:pass@example.org/", "user name"),
        ("https://example.org/#x", "fragment"),
        ("https://bücher.example/", "printable ASCII"),
        ("https://example.org/a b", "printable ASCII"),
        ("https://example.org/\r\nX-Evil: 1", "printable ASCII"),
    ],
)
def test_a_receiver_that_cannot_be_is_named(url: str, blamed: str) -> None:
    with pytest.raises(StartError, match="--notice-url: .*" + re.escape(blamed)) as caught:
        read(["--notice-url", url, "--notice-secret", SECRET], {})
    assert "\n" not in str(caught.value)


def test_some_addresses_are_never_told_anything() -> None:
    with pytest.raises(StartError, match="never sent to"):
        read(
            ["--notice-url", "http://169.254.169.254/", "--notice-secret", SECRET, "--allow-private-notices"],
            {},
        )


@pytest.mark.parametrize(
    "secret",
    ["", "secret", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "whsec_c2hvcnQ=", "whsec_%%%", "whsec_" + "A" * 100],
)
def test_notices_need_a_good_secret_which_is_not_repeated(secret: str) -> None:
    with pytest.raises(StartError, match="--notice-secret") as caught:
        read(["--notice-url", "https://example.org/"], {"HEADWAY_NOTICE_SECRET": secret})
    assert "openssl rand" in str(caught.value)
    assert not secret.removeprefix("whsec_") or secret.removeprefix("whsec_") not in str(caught.value).replace(
        "--notice-secret", ""
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
def test_a_bad_table_of_notices_is_named(tmp_path: Path, table: str, blamed: str) -> None:
    config = tmp_path / "headway.toml"
    config.write_text(f"[[notices]]\n{table}\n")
    with pytest.raises(StartError, match="notices, number 1: .*" + re.escape(blamed)) as caught:
        read(["--config", str(config)], {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["notices = 1", "notices = ['https://example.org/']", "[notices]\nurl = 'x'"])
def test_notices_that_are_no_tables_are_named(tmp_path: Path, content: str) -> None:
    config = tmp_path / "headway.toml"
    config.write_text(content)
    with pytest.raises(StartError, match=r"\[\[notices\]\]"):
        read(["--config", str(config)], {})


def test_a_receiver_is_named_once(tmp_path: Path) -> None:
    config = tmp_path / "headway.toml"
    config.write_text(f'[[notices]]\nurl = "https://example.org/"\nsecret = "{SECRET}"\n' * 2)
    with pytest.raises(StartError, match="there twice"):
        read(["--config", str(config)], {})
