"""The tables, as peewee models. They are bound to no database: store.py runs every query against the one it was given.

Times and spans are BIGINT microseconds (since the Unix epoch, UTC), so that they sort and compare alike on every
engine. Text that only the server reads is JSON in TEXT columns. A change here needs a migration beside it.
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
    """One job. Its key is (session_hash, id): nobody meets a foreign job by choosing its id."""

    session_hash = CharField(32)
    """Keyed hash of the session id, in hexadecimal; the id itself is nowhere. Set at creation, never changes."""
    id = CharField(32)
    """32 lower-case hexadecimal digits. Set at creation by caller or server, never changes."""
    name = TextField()
    """By the caller, at creation and by UpdateJob."""
    invoker = TextField()
    """By the caller, at creation and by UpdateJob."""
    size = BigIntegerField()
    """In units; 0 = not known. By creation, UpdateJob and reports, until the end."""
    unit = TextField()
    """By creation and UpdateJob, until the end."""
    status = CharField(9)
    """A Status of job.py. By every transition."""
    message = TextField()
    """By reports."""
    labels = TextField()
    """JSON object of text. By creation and UpdateJob; label.* is its index."""
    parts = TextField()
    """JSON object: part to progress. By reports that name an amount."""
    sequences = TextField()
    """JSON object: part to the last sequence applied. By reports with one; emptied by a take-over."""
    progress = BigIntegerField()
    """Sum of parts. By reports that name an amount."""
    counters = TextField()
    """JSON object: name to statistics. By reports."""
    error_count = BigIntegerField()
    """How many record errors were ever reported. By reports."""
    error = TextField(null=True)
    """JSON of Error in job.py. By the end, FAILED and CANCELLED alone."""
    cancellation = TextField(null=True)
    """JSON of Cancellation in job.py. By CancelJob, and by the first report that learns of it."""
    create_time = BigIntegerField()
    """By creation."""
    start_time = BigIntegerField(null=True)
    """By the first start."""
    end_time = BigIntegerField(null=True)
    """By the end."""
    last_contact_time = BigIntegerField(null=True)
    """By starts, take-overs and every report."""
    last_progress_time = BigIntegerField(null=True)
    """By reports that move the meter."""
    update_time = BigIntegerField()
    """By every change that raises the revision; orders what a watch resumes with."""
    wake_time = BigIntegerField(index=True)
    """When time alone may change the job next; the sweep looks at nothing else. By machine.py."""
    heartbeat_timeout = BigIntegerField()
    """0 = never LOST. By creation."""
    stall_timeout = BigIntegerField()
    """0 = never stalled. By creation."""
    retention = BigIntegerField()
    """0 = the server's. By creation."""
    stalled = BooleanField()
    """By the sweep; ended by progress, a start and the end."""
    pace = TextField(null=True)
    """JSON array of estimate.Pace. By progress."""
    attempt = IntegerField()
    """By creation (1) and take-overs."""
    attempt_time = BigIntegerField(null=True)
    """When the present attempt began, for its worker owes no progress from before. By starts and take-overs."""
    history = TextField()
    """JSON array of StatusChange in job.py. By every transition."""
    revision = BigIntegerField()
    """By every change that callers can see."""
    continues = TextField()
    """The id of the job that it carries on, or "". By creation."""
    continued_by = TextField()
    """The id of the job that carries it on, or "". By that one's creation."""
    key = TextField()
    """By the caller, at creation, or "". It stays after the end; open_key says whose it is now."""
    create_digest = CharField(64)
    """Hash of CreateJob's parameters, to tell a repeat from another job. By creation."""
    results_digest = CharField(64)
    """Hash of the results, to tell a repeated FinishJob from another one. By the end."""

    class Meta:
        table_name = "job"
        primary_key = CompositeKey("session_hash", "id")
        indexes = (
            (("session_hash", "create_time", "id"), False),
            (("create_time", "id", "session_hash"), False),
            (("id",), False),
        )


class LabelRow(_Table):
    """One label of a job: what ListJobs filters by. Written with job.labels, never read back."""

    session_hash = CharField(32)
    job_id = CharField(32)
    key = CharField(255)
    value = CharField(1024)

    class Meta:
        table_name = "label"
        primary_key = CompositeKey("session_hash", "job_id", "key")


class OpenKeyRow(_Table):
    """The key of a job that has not ended: no two of a session have the same, whichever servers create them. By
    creation; gone with the end."""

    session_hash = CharField(32)
    key = TextField()
    job_id = CharField(32)

    class Meta:
        table_name = "open_key"
        primary_key = CompositeKey("session_hash", "key")


class VariablesRow(_Table):
    """All variables of a job. By SetVariables and by reports that carry a checkpoint; absent until there is one."""

    session_hash = CharField(32)
    job_id = CharField(32)
    variables = TextField()
    """JSON object: name to the JSON text of the value."""

    class Meta:
        table_name = "variables"
        primary_key = CompositeKey("session_hash", "job_id")


class ResultsRow(_Table):
    """The results of a job. By FinishJob, once; absent if it was given none."""

    session_hash = CharField(32)
    job_id = CharField(32)
    results = TextField()
    """JSON."""

    class Meta:
        table_name = "results"
        primary_key = CompositeKey("session_hash", "job_id")


class RecordErrorRow(_Table):
    """A record error: of each job the first 100 and the last 100. By reports."""

    session_hash = CharField(32)
    job_id = CharField(32)
    number = BigIntegerField()
    """Which error of its job, from 1."""
    record = TextField()
    code = TextField()
    message = TextField()

    class Meta:
        table_name = "record_error"
        primary_key = CompositeKey("session_hash", "job_id", "number")


class RemovedRow(_Table):
    """A job that was removed, so that a watch taken up again can tell. Kept for a day."""

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
    """A notice that waits to be delivered to one receiver. Gone once it was, or was given up."""

    endpoint = CharField(32)
    """Hash of the receiver's URL. Set with the commit that caused the notice, never changes."""
    id = CharField(32)
    """The same for all receivers of the notice, and at every attempt. As endpoint."""
    body = TextField()
    """What is sent: a CloudEvent as JSON. As endpoint."""
    create_time = BigIntegerField()
    """When what it tells of happened. As endpoint."""
    next_time = BigIntegerField()
    """When it is to be sent next; while a server is sending it, when another one may. By claims and failures."""
    attempts = IntegerField()
    """How often it was claimed; a claim holds only if nobody else raised it. By claims."""

    class Meta:
        table_name = "notice"
        primary_key = CompositeKey("endpoint", "id")
        indexes = (
            (("endpoint", "next_time"), False),
            (("endpoint", "attempts", "next_time"), False),
        )


class ChangeLogRow(_Table):
    """Which jobs a commit changed. Where servers share a database; kept for some minutes."""

    xid = BigIntegerField(primary_key=True)
    """The transaction."""
    server = CharField(32)
    """Who committed it: that server need not read it."""
    jobs = TextField()
    """JSON: [[session_hash, id], …]."""

    class Meta:
        table_name = "change_log"


class ServerRow(_Table):
    """A server, as the others see it. Where servers share a database; by each server, once a second."""

    id = CharField(32, primary_key=True)
    heard_until = BigIntegerField()
    """It has committed all that it received until then."""
    note_time = BigIntegerField()
    """When it wrote this, by the database's clock."""

    class Meta:
        table_name = "server"


class FactRow(_Table):
    """What the database knows of itself: a name and a value."""

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
