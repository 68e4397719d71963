"""Every limit of the contract, once: name, default and unit. settings.py turns each into a flag and a variable."""

from dataclasses import dataclass, field

INT64_MAX = 2**63 - 1

MICROSECONDS = 1_000_000
"""Times and spans are whole microseconds throughout the domain and the database."""

DURATION_MAX = 3650 * 86_400 * MICROSECONDS
"""The longest span that a request may name (µs)."""


def _limit(default: int, text: str) -> int:
    value: int = field(default=default, metadata={"help": text})
    return value


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of each thing there may be. Lengths are in characters unless they say bytes."""

    session_id_bytes: int = _limit(256, "length of a session id, in bytes")
    name_length: int = _limit(256, "length of a job's name, in characters")
    invoker_length: int = _limit(256, "length of a job's invoker, in characters")
    unit_length: int = _limit(32, "length of a job's unit, in characters")
    message_length: int = _limit(1024, "length of a message or reason, in characters")
    part_length: int = _limit(128, "length of the name of a part, counter or variable, in characters")
    labels: int = _limit(64, "labels of a job")
    label_key_length: int = _limit(63, "length of a label's key, in characters")
    label_value_length: int = _limit(256, "length of a label's value, in characters")
    parts: int = _limit(256, "parts of a job")
    counters: int = _limit(64, "counters of a job")
    variables: int = _limit(256, "variables of a job")
    variables_bytes: int = _limit(256 * 1024, "size of all variables of a job, in bytes of JSON")
    results_bytes: int = _limit(1024 * 1024, "size of a job's results, in bytes of JSON")
    error_details_bytes: int = _limit(64 * 1024, "size of the details of a job's error, in bytes")
    record_length: int = _limit(256, "length of the name of a failed record, in characters")
    record_code_length: int = _limit(64, "length of a record error's code, in characters")
    record_errors_a_report: int = _limit(1000, "record errors in one report")
    reports_a_message: int = _limit(1000, "reports in one StreamProgress message")
    page_size: int = _limit(1000, "jobs on one page of ListJobs")
    jobs: int = _limit(2_000_000, "jobs that the server stores in all")
    sessions: int = _limit(200_000, "sessions whose jobs the server stores")
    session_jobs: int = _limit(10_000, "jobs of a session")
    session_watches: int = _limit(1000, "open watches of a session")
    watches: int = _limit(20_000, "open watches of this server")
    watch_bytes: int = _limit(128 * 1024 * 1024, "changes and jobs that wait for slow watches of this server, in bytes")
    cached_bytes: int = _limit(64 * 1024 * 1024, "jobs that this server keeps at hand in memory, in bytes")
    message_bytes: int = _limit(4 * 1024 * 1024, "size of a gRPC message, in bytes")
    pending_writes: int = _limit(10_000, "calls that wait for their commit before further ones are shed")
    pending_notices: int = _limit(100_000, "notices that wait for one receiver before the oldest are given up")
