"""The first schema. A frozen copy of the models as they were, independent of what they become."""

import peewee as pw


def up(migrator, db):  # type: ignore[no-untyped-def]  # called by playhouse.migrations, which is untyped
    class Table(pw.Model):
        class Meta:
            database = db
            legacy_table_names = False

    class Job(Table):
        session_hash = pw.CharField(32)
        id = pw.CharField(32)
        name = pw.TextField()
        invoker = pw.TextField()
        size = pw.BigIntegerField()
        unit = pw.TextField()
        status = pw.CharField(9)
        message = pw.TextField()
        labels = pw.TextField()
        parts = pw.TextField()
        sequences = pw.TextField()
        progress = pw.BigIntegerField()
        counters = pw.TextField()
        error_count = pw.BigIntegerField()
        error = pw.TextField(null=True)
        cancellation = pw.TextField(null=True)
        create_time = pw.BigIntegerField()
        start_time = pw.BigIntegerField(null=True)
        end_time = pw.BigIntegerField(null=True)
        last_contact_time = pw.BigIntegerField(null=True)
        last_progress_time = pw.BigIntegerField(null=True)
        update_time = pw.BigIntegerField()
        wake_time = pw.BigIntegerField(index=True)
        heartbeat_timeout = pw.BigIntegerField()
        stall_timeout = pw.BigIntegerField()
        retention = pw.BigIntegerField()
        stalled = pw.BooleanField()
        pace = pw.TextField(null=True)
        attempt = pw.IntegerField()
        attempt_time = pw.BigIntegerField(null=True)
        history = pw.TextField()
        revision = pw.BigIntegerField()
        create_digest = pw.CharField(64)
        results_digest = pw.CharField(64)

        class Meta:
            primary_key = pw.CompositeKey("session_hash", "id")
            indexes = (
                (("session_hash", "create_time", "id"), False),
                (("create_time", "id"), False),
                (("id",), False),
            )

    class Label(Table):
        session_hash = pw.CharField(32)
        job_id = pw.CharField(32)
        key = pw.CharField(255)
        value = pw.CharField(1024)

        class Meta:
            primary_key = pw.CompositeKey("session_hash", "job_id", "key")

    class Variables(Table):
        session_hash = pw.CharField(32)
        job_id = pw.CharField(32)
        variables = pw.TextField()

        class Meta:
            primary_key = pw.CompositeKey("session_hash", "job_id")

    class Results(Table):
        session_hash = pw.CharField(32)
        job_id = pw.CharField(32)
        results = pw.TextField()

        class Meta:
            primary_key = pw.CompositeKey("session_hash", "job_id")

    class RecordError(Table):
        session_hash = pw.CharField(32)
        job_id = pw.CharField(32)
        number = pw.BigIntegerField()
        record = pw.TextField()
        code = pw.TextField()
        message = pw.TextField()

        class Meta:
            primary_key = pw.CompositeKey("session_hash", "job_id", "number")

    class Removed(Table):
        session_hash = pw.CharField(32)
        job_id = pw.CharField(32)
        remove_time = pw.BigIntegerField(index=True)

        class Meta:
            primary_key = pw.CompositeKey("session_hash", "job_id")

    class Fact(Table):
        name = pw.CharField(64, primary_key=True)
        value = pw.TextField()

    # Not `safe`: tables of these names that somebody else made are not ours to use.
    db.create_tables([Job, Label, Variables, Results, RecordError, Removed, Fact], safe=False)
