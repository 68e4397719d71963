"""Options of the gRPC port, each with a reason where gRPC's default would do harm."""

from headway_server.domain.limits import Limits

METADATA_BYTES = 16 * 1024

CONNECTION_AGE_MS = 30 * 60 * 1000
"""After this time a connection accepts no new calls. After the grace, calls that never sent a message end too."""

CONNECTION_GRACE_MS = 70 * 60 * 1000
"""Longer than the maximum duration of any stream."""

READ_AHEAD = 512 * 1024
"""Bytes of a stream that gRPC reads ahead. A requested message is read as a whole."""

CONNECTION_CALLS = 1200
"""The most open calls of one connection, including watches. gRPC's clients hold others back until there is room."""

PENDING_CALLS = 1500
"""Calls that may wait in gRPC until the event loop accepts them. gRPC closes further ones at once, with CANCELLED.

Refusing a call from Python, with a reason, costs two thirds of serving a light one: at five times its capacity, a
server that refused every surplus call that way would serve nothing. So this bounds the wait to about 0.2 s. It is
higher than CONNECTION_CALLS, so that a single connection cannot fill it and cause other callers' calls to be closed."""


def options(limits: Limits) -> list[tuple[str, int]]:
    """The options of the gRPC server."""
    return [
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", -1),
        # With it, two servers on one port would each get some of the calls.
        ("grpc.so_reuseport", 0),
        # The same limit twice: between a soft and a hard limit gRPC refuses at random.
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        # Without pings a dead watcher is detected only after hours.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.max_connection_age_ms", CONNECTION_AGE_MS),
        ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_MS),
        ("grpc.max_concurrent_streams", CONNECTION_CALLS),
        ("grpc.max_allowed_incoming_connections", limits.grpc_connections),
        # Otherwise gRPC reads ahead more and more from a fast connection, and the data is old when it is processed.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", READ_AHEAD),
        # The same limit twice: between the two gRPC would refuse at random.
        ("grpc.server.max_pending_requests", PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", PENDING_CALLS),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.enable_channelz", 1),
    ]
