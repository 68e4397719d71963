"""All limits of the contract: name, default and unit. settings.py makes a flag and a variable of each."""

from dataclasses import dataclass, field

INT64_MAX = 2**63 - 1

GIB = 1024**3

MICROSECONDS = 1_000_000
"""Microseconds in a second. Times and spans are whole microseconds in the domain and the database."""

DURATION_MAX = 3650 * 86_400 * MICROSECONDS
"""The longest span that a request may contain (µs)."""


COUNT_MAX = 1_000_000
"""The highest value of a limit that counts something, unless the limit states another one."""


def _limit(default: int, text: str, most: int = COUNT_MAX) -> int:
    """`most`: the highest value that an operator can set. Every database, transport and client can handle that."""
    value: int = field(default=default, metadata={"help": text, "most": most})
    return value


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits. Lengths are in characters unless the name says bytes."""

    session_id_bytes: int = _limit(256, "length of a session id, in bytes", 4096)
    name_length: int = _limit(256, "length of a job's name, in characters", 4096)
    invoker_length: int = _limit(256, "length of a job's invoker, in characters", 4096)
    unit_length: int = _limit(32, "length of a job's unit, in characters", 256)
    message_length: int = _limit(1024, "length of a message or reason, in characters", 65_536)
    part_length: int = _limit(128, "length of the name of a part, counter or variable, in characters", 1024)
    key_length: int = _limit(256, "length of a job's key, in characters", 512)
    labels: int = _limit(64, "labels of a job", 1000)
    label_key_length: int = _limit(63, "length of a label's key, in characters", 255)
    label_value_length: int = _limit(256, "length of a label's value, in characters", 1024)
    parts: int = _limit(256, "parts of a job", 10_000)
    counters: int = _limit(64, "counters of a job", 10_000)
    variables: int = _limit(256, "variables of a job", 10_000)
    variables_bytes: int = _limit(256 * 1024, "size of all variables of a job, in bytes of JSON", 64 * 1024 * 1024)
    results_bytes: int = _limit(1024 * 1024, "size of a job's results, in bytes of JSON", 64 * 1024 * 1024)
    error_details_bytes: int = _limit(64 * 1024, "size of the details of a job's error, in bytes", 1024 * 1024)
    record_length: int = _limit(256, "length of the name of a failed record, in characters", 4096)
    record_code_length: int = _limit(64, "length of a record error's code, in characters", 1024)
    record_errors_a_report: int = _limit(1000, "record errors in one report", 100_000)
    reports_a_message: int = _limit(1000, "reports in one StreamProgress message", 100_000)
    page_size: int = _limit(1000, "jobs on one page of ListJobs", 10_000)
    jobs: int = _limit(2_000_000, "jobs that the server stores in all", 1_000_000_000)
    sessions: int = _limit(200_000, "sessions whose jobs the server stores", 1_000_000_000)
    session_jobs: int = _limit(10_000, "jobs of a session", 100_000_000)
    session_watches: int = _limit(1000, "open watches of a session")
    watches: int = _limit(10_000, "open watches of this server")
    values: int = _limit(100_000, "values (texts, numbers, lists and so on) in the JSON of one request", 10_000_000)
    watch_bytes: int = _limit(
        64 * 1024 * 1024, "size of changes and jobs that wait for slow watches, in bytes", 4 * GIB
    )
    cached_bytes: int = _limit(64 * 1024 * 1024, "size of the jobs that are cached in memory, in bytes", 4 * GIB)
    open_calls: int = _limit(10_000, "open gRPC calls")
    grpc_connections: int = _limit(10_000, "open gRPC connections")
    http_connections: int = _limit(2000, "open HTTP connections")
    unsent_bytes: int = _limit(
        64 * 1024 * 1024, "size of all replies that callers have not received yet, in bytes", 4 * GIB
    )
    message_bytes: int = _limit(4 * 1024 * 1024, "size of a gRPC message, in bytes", 256 * 1024 * 1024)
    request_bytes: int = _limit(
        64 * 1024 * 1024, "size of all requests that arrive or are being processed, in bytes", 4 * GIB
    )
    pending_writes: int = _limit(10_000, "calls that wait for their commit; more are refused")
    pending_webhooks: int = _limit(
        100_000, "webhooks that wait for one receiver; more make the server drop the oldest", 100_000_000
    )
