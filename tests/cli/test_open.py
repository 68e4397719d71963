"""`headway open`: the page, with this shell's session, in a browser that is played by a script."""

import sys
from pathlib import Path

import pytest

from tests.cli.run import Cli
from tests.support.server import ServerProcess

JOB = "0190b5a1c8d07b2a9c3e5f60718293a4"

BROWSER = """
import encodings.idna, http.client, os, sys
from pathlib import Path
from urllib.parse import urlsplit

def answer():
    redirect = urlsplit(sys.argv[1])
    connection = http.client.HTTPConnection(redirect.netloc)
    connection.request("GET", redirect.path)
    response = connection.getresponse()
    return f"{response.status} {response.getheader('Location')}"

found = [sys.argv[1]]
if os.getuid() == 0:
    # Another user, who has read this command line.
    os.seteuid(65534)
    found.append(answer())
    os.seteuid(0)
else:
    found.append("404 None")
found += [answer(), answer()]
Path(sys.argv[2]).write_text("\\n".join(found))
"""


@pytest.fixture(autouse=True)
def page(environment: dict[str, str], server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the page is; the environment says so too, and nothing of a browser."""
    assert environment
    address = f"http://{server.http_address}/"
    monkeypatch.setenv("HEADWAY_PAGE", address)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    return address


def test_the_session_stands_behind_the_number_sign(cli: Cli, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_SESSION", "a b&c=d/é")
    assert cli("open", "--print").out == f"{page}#session=a%20b%26c%3Dd%2F%C3%A9\n"
    monkeypatch.setenv("HEADWAY_TOKEN", "tok+en")
    assert cli("open", JOB, "--print").out == f"{page}#session=a%20b%26c%3Dd%2F%C3%A9&token=tok%2Ben&job={JOB}\n"
    monkeypatch.delenv("HEADWAY_SESSION")
    assert cli("open", "--print").out == f"{page}#token=tok%2Ben\n"
    monkeypatch.delenv("HEADWAY_TOKEN")
    assert cli("open", "--print").out == f"{page}\n"


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ([], "http://127.0.0.1:8080/"),
        (["--target", "headway.example.org:443"], "http://headway.example.org:8080/"),
        (["--target", "https://[::1]:50051"], "https://[::1]:8080/"),
        (["--page", "https://staff.example.org/headway"], "https://staff.example.org/headway/"),
    ],
)
def test_where_the_page_is(cli: Cli, monkeypatch: pytest.MonkeyPatch, options: list[str], address: str) -> None:
    monkeypatch.delenv("HEADWAY_PAGE")
    monkeypatch.delenv("HEADWAY_SESSION")
    if not options:
        monkeypatch.setenv("HEADWAY_TARGET", "127.0.0.1:1")
    assert cli("open", "--print", *options).out == f"{address}\n"


def test_the_server_of_the_target_says_where_its_page_is(cli: Cli, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWAY_PAGE")
    monkeypatch.delenv("HEADWAY_SESSION")
    assert cli("open", "--print").out == f"{page}\n"
    away = cli("open", "--target", "127.0.0.1:1")
    assert (away.status, away.out) == (4, "")
    assert "no server answers at 127.0.0.1:1" in away.err


def test_a_server_without_a_page_says_so(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWAY_PAGE")
    with ServerProcess(tmp_path, http="") as server:
        result = cli("open", "--target", server.address)
    assert (result.status, result.out) == (4, "")
    assert "has no page" in result.err


@pytest.mark.parametrize("wrong", [["--page", "ftp://x/"], ["--page", "http://a@b/"], ["--page", "x"], ["nonsense"]])
def test_what_is_no_address_and_no_job(cli: Cli, wrong: list[str]) -> None:
    result = cli("open", *wrong)
    assert (result.status, result.out) == (2, "")
    assert result.err.count("\n") == 1


def test_without_a_browser_the_address_is_printed(cli: Cli, page: str, session: str) -> None:
    result = cli("open")
    assert (result.status, result.out) == (0, f"{page}#session={session}\n")
    assert "open this address" in result.err


def test_without_a_page_there_is_nothing_to_open(cli: Cli) -> None:
    result = cli("open", "--page", "http://127.0.0.1:1/")
    assert (result.status, result.out) == (4, "")
    assert "no page answers at http://127.0.0.1:1/" in result.err


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells whose a connection is")
def test_the_browser_alone_gets_the_session(
    cli: Cli, page: str, session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, note = tmp_path / "browser.py", tmp_path / "note"
    script.write_text(BROWSER)
    monkeypatch.setenv("BROWSER", f"{sys.executable} {script} %s {note}")
    result = cli("open", JOB)
    assert (result.status, result.out, result.err) == (0, f"opened {page}\n", "")
    line, stranger, own, again = note.read_text().splitlines()
    assert session not in line
    assert stranger == "404 None"
    assert own == f"302 {page}#session={session}&job={JOB}"
    assert again == "404 None"
