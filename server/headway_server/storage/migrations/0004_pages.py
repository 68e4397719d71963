"""Indexes that lists and watches walk along: in the order of their pages, so that nothing is sorted."""


def up(migrator, db):  # type: ignore[no-untyped-def]  # called by playhouse.migrations, which is untyped
    # None of these columns changes after its row is made: reports do not rewrite the indexes.
    db.execute_sql('CREATE INDEX "job_create_time_id_session_hash" ON "job" ("create_time", "id", "session_hash")')
    db.execute_sql('DROP INDEX "job_create_time_id"')
    db.execute_sql(
        'CREATE INDEX "removed_remove_time_job_id_session_hash" ON "removed" ("remove_time", "job_id", "session_hash")'
    )
    db.execute_sql(
        'CREATE INDEX "removed_session_hash_remove_time_job_id" ON "removed" ("session_hash", "remove_time", "job_id")'
    )
    db.execute_sql('DROP INDEX "removed_remove_time"')
