"""The HTTP port at the start: where it is, where it cannot be, and where it is not."""

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import pytest

from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.http import Client
from tests.support.server import ServerProcess
from tests.support.waiting import until


def test_the_greeting_leads_to_the_page(own_server: ServerProcess) -> None:
    """With the admin token of this run behind the #, where no server and no proxy sees it."""
    assert own_server.token not in own_server.log
    page = urllib.request.urlopen(f"http://{own_server.http_address}/#token={own_server.token}", timeout=10)
    assert b"Headway" in page.read()
    client = Client(own_server.http_address, {"authorization": f"Bearer {own_server.token}"})
    assert client.call("ListJobs", {"sessionId": "-"}).status == 200
    client.close()


def test_no_token_is_kept_in_a_log(tmp_path: Path) -> None:
    """Standard output that is a file may be a log: there the greeting says in which file the token is."""
    output = tmp_path / "output"
    command = [sys.executable, "-m", "headway_server", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    with output.open("w") as stream:
        server = subprocess.Popen([*command, "--database", f"sqlite:///{tmp_path / 'headway.db'}"], stdout=stream)
    try:
        until(lambda: "Ctrl-C" in output.read_text(), 30)
        (file,) = tmp_path.glob("*.admin-token")
        assert file.stat().st_mode & 0o777 == 0o600
        assert str(file) in output.read_text()
        assert file.read_text().strip() not in output.read_text()
    finally:
        server.terminate()
        assert server.wait(timeout=20) == 0
    assert list(tmp_path.glob("*.admin-token")) == []


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """Says what to do; and the server starts once that is done, on the same database."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = ServerProcess(tmp_path, http=f"127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(RuntimeError, match=r"Cannot listen on .*another --http.* --http ''"):
            server.start()
        assert server.log.count("\n") == 1
    with server:
        assert server.http_address.startswith("127.0.0.1:")


def test_no_port_at_all(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, http="") as server, grpc.insecure_channel(server.address) as channel:
        assert JobServiceStub(channel).CreateJob(pb.CreateJobRequest(session_id="s"), timeout=10).id


def test_by_name_it_listens_on_every_loopback_address(tmp_path: Path) -> None:
    """Whichever of them a browser tries first."""
    with ServerProcess(tmp_path, http="localhost:0") as server:
        port = int(server.http_address.rpartition(":")[2])
        for *_, where in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM):
            with socket.create_connection((str(where[0]), port), timeout=10) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
