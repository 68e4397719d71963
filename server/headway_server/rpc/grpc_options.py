"""How the gRPC port behaves; each option where gRPC's own default would harm."""

from headway_server.domain.limits import Limits

METADATA_BYTES = 16 * 1024

CONNECTION_AGE_MS = 30 * 60 * 1000
"""A connection is closed for new calls after this; with the grace it also ends calls that never sent their message."""

CONNECTION_GRACE_MS = 70 * 60 * 1000
"""Longer than any stream lives by itself."""

READ_AHEAD = 512 * 1024
"""Bytes of a stream that gRPC takes in before they are asked for; a message that is asked for is taken in whole."""

CONNECTION_CALLS = 1200
"""Open calls of one connection, watches among them. gRPC's clients keep further ones back until there is room."""

PENDING_CALLS = 1500
"""Calls that may wait in gRPC until the event loop takes them; it closes further ones at once, with CANCELLED.

To refuse a call from Python, with a reason, costs two thirds of serving a light one: a server that refused so whatever
is too much at five times its capacity would serve nothing. So this bounds the wait: it is passed in order, some 0.2 s.
It is above CONNECTION_CALLS, so that no single connection can fill it and have others' calls closed."""


def options(limits: Limits) -> list[tuple[str, int]]:
    """The options of the gRPC server."""
    return [
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would each get some of the calls.
        ("grpc.so_reuseport", 0),
        # Between a soft and a hard limit gRPC refuses at random.
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        # Without pings a dead watcher is noticed after hours.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.max_connection_age_ms", CONNECTION_AGE_MS),
        ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_MS),
        ("grpc.max_concurrent_streams", CONNECTION_CALLS),
        ("grpc.max_allowed_incoming_connections", limits.grpc_connections),
        # By itself gRPC takes in more and more the faster a connection sends, which then grows old before it is read.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", READ_AHEAD),
        # The same twice: between the two gRPC would refuse at random.
        ("grpc.server.max_pending_requests", PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", PENDING_CALLS),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.enable_channelz", 1),
    ]
