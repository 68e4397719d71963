"""Settings: one place, three sources, clear refusals."""

from pathlib import Path

import pytest

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
