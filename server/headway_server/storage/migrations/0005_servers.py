"""What servers that share a database tell each other. On SQLite, where one server writes, these stay empty."""

import peewee as pw


def up(migrator, db):  # type: ignore[no-untyped-def]  # called by playhouse.migrations, which is untyped
    class Table(pw.Model):
        class Meta:
            database = db
            legacy_table_names = False

    class ChangeLog(Table):
        xid = pw.BigIntegerField(primary_key=True)
        server = pw.CharField(32)
        jobs = pw.TextField()

    class Server(Table):
        id = pw.CharField(32, primary_key=True)
        heard_until = pw.BigIntegerField()
        note_time = pw.BigIntegerField()

    # Not `safe`: tables of these names that somebody else made are not ours to use.
    db.create_tables([ChangeLog, Server], safe=False)
