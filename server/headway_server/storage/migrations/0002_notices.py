"""The outbox: notices that wait to be delivered."""

import peewee as pw


def up(migrator, db):  # type: ignore[no-untyped-def]  # called by playhouse.migrations, which is untyped
    class Notice(pw.Model):
        endpoint = pw.CharField(32)
        id = pw.CharField(32)
        body = pw.TextField()
        create_time = pw.BigIntegerField()
        next_time = pw.BigIntegerField()
        attempts = pw.IntegerField()

        class Meta:
            database = db
            legacy_table_names = False
            primary_key = pw.CompositeKey("endpoint", "id")
            indexes = ((("endpoint", "next_time"), False),)

    # Not `safe`: a table of this name that somebody else made is not ours to use.
    db.create_tables([Notice], safe=False)
