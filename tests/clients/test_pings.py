"""Every client pings less often than the server allows: otherwise the server ends the connection ("too many pings")."""

import re
from pathlib import Path

import pytest

from headway_server.domain.limits import Limits
from headway_server.rpc.grpc_options import options

ROOT = Path(__file__).resolve().parents[2]

INTERVALS = {
    "clients/python/headway/target.py": r'"grpc\.keepalive_time_ms", ([\d_]+)',
    "clients/node/src/target.ts": r'"grpc\.keepalive_time_ms": ([\d_]+)',
    "clients/go/target.go": r"keepalive\.ClientParameters\{Time: ([\d]+) \* time\.Second",
    "clients/java/client/src/main/java/dev/headway/Channels.java": r"keepAliveTime\((\d+), TimeUnit\.SECONDS\)",
    "clients/rust/src/target.rs": r"http2_keep_alive_interval\(Duration::from_secs\((\d+)\)\)",
}
"""Where each client says after how many seconds of silence it pings. Perl and the shell do not use gRPC's pings."""


@pytest.mark.parametrize("path", INTERVALS)
def test_a_client_pings_less_often_than_the_server_allows(path: str) -> None:
    allowed = dict(options(Limits()))["grpc.http2.min_ping_interval_without_data_ms"]
    found = re.search(INTERVALS[path], (ROOT / path).read_text())
    assert found is not None
    interval = int(found[1]) * (1 if "_ms" in INTERVALS[path] else 1000)
    assert interval >= 2 * allowed
