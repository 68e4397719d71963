"""The tables, as peewee models. They are not bound to a database: the store runs every query against its own.

Times and spans are BIGINT microseconds (since the Unix epoch, UTC): they sort and compare alike on every database. Data
that only the server reads is JSON in TEXT columns. A change here needs a migration.
"""

from peewee import (
    BigIntegerField,
    BooleanField,
    CharField,
    CompositeKey,
    IntegerField,
    Model,
    TextField,
)


class _Table(Model):
    class Meta:
        legacy_table_names = False


class JobRow(_Table):
    """One job. Its key is (session_hash, id): a caller cannot reach a job of another session through its id."""

    session_hash = CharField(32)
    """Keyed hash of the session id, in hexadecimal. The id itself is not stored. Set at creation, never changes."""
    id = CharField(32)
    """32 lower-case hexadecimal digits. Set at creation by caller or server, never changes."""
    name = TextField()
    """From the caller, at creation and by UpdateJob."""
    invoker = TextField()
    """From the caller, at creation and by UpdateJob."""
    size = BigIntegerField()
    """In units; 0 = unknown. By creation, UpdateJob and reports, until the end."""
    unit = TextField()
    """By creation and UpdateJob, until the end."""
    status = CharField(9)
    """A Status of domain/job.py. By every transition."""
    message = TextField()
    """By reports."""
    labels = TextField()
    """JSON object of text. By creation and UpdateJob. The table label is its index."""
    parts = TextField()
    """JSON object: part to progress. By reports with an amount."""
    sequences = TextField()
    """JSON object: part to the last applied sequence. By reports with a sequence. A take-over empties it."""
    progress = BigIntegerField()
    """Sum of parts. By reports with an amount."""
    counters = TextField()
    """JSON object: name to count. By reports."""
    error_count = BigIntegerField()
    """How many record errors were ever reported. By reports."""
    error = TextField(null=True)
    """JSON of Error in domain/job.py. By the end, only for FAILED and CANCELLED."""
    cancellation = TextField(null=True)
    """JSON of Cancellation in domain/job.py. By CancelJob, and by the first report after it."""
    create_time = BigIntegerField()
    """By creation."""
    start_time = BigIntegerField(null=True)
    """By the first start."""
    end_time = BigIntegerField(null=True)
    """By the end."""
    last_contact_time = BigIntegerField(null=True)
    """By starts, take-overs and every report."""
    last_progress_time = BigIntegerField(null=True)
    """By reports that change the progress."""
    update_time = BigIntegerField()
    """By every change that raises the revision. Resumed watches use its order."""
    wake_time = BigIntegerField(index=True)
    """When time alone may change the job next. The sweeper reads only this. By domain/state_machine.py."""
    heartbeat_timeout = BigIntegerField()
    """0 = never LOST. By creation."""
    stall_timeout = BigIntegerField()
    """0 = never stalled. By creation."""
    retention = BigIntegerField()
    """0 = the server's. By creation."""
    stalled = BooleanField()
    """By the sweeper. Progress, a start and the end reset it."""
    pace = TextField(null=True)
    """JSON array of estimate.Pace. By progress."""
    attempt = IntegerField()
    """By creation (1) and take-overs."""
    attempt_time = BigIntegerField(null=True)
    """When the present attempt began: the stall timeout does not count earlier time. By starts and take-overs."""
    history = TextField()
    """JSON array of StatusChange in domain/job.py. By every transition."""
    revision = BigIntegerField()
    """By every change that callers can see."""
    continues = TextField()
    """The id of the job that this one continues, or "". By creation."""
    continued_by = TextField()
    """The id of the job that continues this one, or "". By that job's creation."""
    key = TextField()
    """From the caller, at creation, or "". It stays after the end. The table open_key has the key's present job."""
    create_digest = CharField(64)
    """Hash of CreateJob's parameters, to tell a repeated call from another job. By creation."""
    results_digest = CharField(64)
    """Hash of the results, to tell a repeated FinishJob from a different one. By the end."""

    class Meta:
        table_name = "job"
        primary_key = CompositeKey("session_hash", "id")
        indexes = (
            (("session_hash", "create_time", "id"), False),
            (("create_time", "id", "session_hash"), False),
            (("id",), False),
        )


class LabelRow(_Table):
    """One label of a job, for the filters of ListJobs. Written with job.labels. Jobs are never read from it."""

    session_hash = CharField(32)
    job_id = CharField(32)
    key = CharField(255)
    value = CharField(1024)

    class Meta:
        table_name = "label"
        primary_key = CompositeKey("session_hash", "job_id", "key")


class OpenKeyRow(_Table):
    """The key of a job that has not ended. Keys are unique in a session, even if several servers create jobs. By
    creation; the end deletes it."""

    session_hash = CharField(32)
    key = TextField()
    job_id = CharField(32)

    class Meta:
        table_name = "open_key"
        primary_key = CompositeKey("session_hash", "key")


class VariablesRow(_Table):
    """All variables of a job. By SetVariables and by reports with variables. No row if there are none."""

    session_hash = CharField(32)
    job_id = CharField(32)
    variables = TextField()
    """JSON object: name to the JSON text of the value."""

    class Meta:
        table_name = "variables"
        primary_key = CompositeKey("session_hash", "job_id")


class ResultsRow(_Table):
    """The results of a job. By FinishJob, once. No row if there are none."""

    session_hash = CharField(32)
    job_id = CharField(32)
    results = TextField()
    """JSON."""

    class Meta:
        table_name = "results"
        primary_key = CompositeKey("session_hash", "job_id")


class RecordErrorRow(_Table):
    """A record error. The first 100 and the last 100 of each job are kept. By reports."""

    session_hash = CharField(32)
    job_id = CharField(32)
    number = BigIntegerField()
    """The number of the error within its job, from 1."""
    record = TextField()
    code = TextField()
    message = TextField()

    class Meta:
        table_name = "record_error"
        primary_key = CompositeKey("session_hash", "job_id", "number")


class RemovedRow(_Table):
    """A removed job, so that resumed watches can send its removal. Kept for a day."""

    session_hash = CharField(32)
    job_id = CharField(32)
    remove_time = BigIntegerField()
    """By ClearJob and retention."""

    class Meta:
        table_name = "removed"
        primary_key = CompositeKey("session_hash", "job_id")
        indexes = (
            (("remove_time", "job_id", "session_hash"), False),
            (("session_hash", "remove_time", "job_id"), False),
        )


class WebhookRow(_Table):
    """A webhook that waits for delivery to one receiver. Deleted when it is delivered or given up."""

    endpoint = CharField(32)
    """Hash of the receiver's URL. Set by the commit that caused the webhook, never changes."""
    id = CharField(32)
    """The same for all receivers and all attempts. Set as `endpoint`."""
    body = TextField()
    """The body to send: a CloudEvent as JSON. Set as `endpoint`."""
    create_time = BigIntegerField()
    """When the event happened. Set as `endpoint`."""
    next_time = BigIntegerField()
    """When to send it next. While a server sends it: when another server may. By claims and failures."""
    attempts = IntegerField()
    """How often it was claimed. A claim is valid only if no other server raised this number. By claims."""

    class Meta:
        table_name = "notice"
        primary_key = CompositeKey("endpoint", "id")
        indexes = (
            (("endpoint", "next_time"), False),
            (("endpoint", "attempts", "next_time"), False),
        )


class ChangeLogRow(_Table):
    """Which jobs a commit changed. For servers that share a database. Kept for some minutes."""

    xid = BigIntegerField(primary_key=True)
    """The transaction."""
    server = CharField(32)
    """The server that committed it. That server does not read it."""
    jobs = TextField()
    """JSON: [[session_hash, id], …]."""

    class Meta:
        table_name = "change_log"


class ServerRow(_Table):
    """A server, as the others see it. For servers that share a database. By each server, once a second."""

    id = CharField(32, primary_key=True)
    heard_until = BigIntegerField()
    """The server has committed everything that it received until then."""
    note_time = BigIntegerField()
    """When the server wrote this row, by the database's clock."""

    class Meta:
        table_name = "server"


class FactRow(_Table):
    """A fact about the database: a name and a value."""

    name = CharField(64, primary_key=True)
    value = TextField()

    class Meta:
        table_name = "fact"


TABLES: tuple[type[Model], ...] = (
    JobRow,
    LabelRow,
    OpenKeyRow,
    VariablesRow,
    ResultsRow,
    RecordErrorRow,
    RemovedRow,
    WebhookRow,
    ChangeLogRow,
    ServerRow,
    FactRow,
)
