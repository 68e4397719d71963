"""The log of changes that servers which share a database read. On SQLite, where one server writes, it stays empty."""

import peewee as pw


def up(migrator, db):  # type: ignore[no-untyped-def]  # called by playhouse.migrations, which is untyped
    class ChangeLog(pw.Model):
        xid = pw.BigIntegerField(primary_key=True)
        server = pw.CharField(32)
        jobs = pw.TextField()

        class Meta:
            database = db
            legacy_table_names = False

    # Not `safe`: a table of this name that somebody else made is not ours to use.
    db.create_tables([ChangeLog], safe=False)
