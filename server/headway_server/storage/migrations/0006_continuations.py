"""Jobs that carry on others, and keys of those that have not ended. Databases add such columns without a rewrite."""

import peewee as pw


def up(migrator, db):  # type: ignore[no-untyped-def]  # called by playhouse.migrations, which is untyped
    class OpenKey(pw.Model):
        session_hash = pw.CharField(32)
        key = pw.TextField()
        job_id = pw.CharField(32)

        class Meta:
            database = db
            legacy_table_names = False
            primary_key = pw.CompositeKey("session_hash", "key")

    for column in ("continues", "continued_by", "key"):
        db.execute_sql(f'ALTER TABLE "job" ADD COLUMN "{column}" TEXT NOT NULL DEFAULT \'\'')
    # Not `safe`: a table of this name that somebody else made is not ours to use.
    db.create_tables([OpenKey], safe=False)
