"""An index by which notices that were never tried are found among those that were."""


def up(migrator, db):  # type: ignore[no-untyped-def]  # called by playhouse.migrations, which is untyped
    migrator.migrate(migrator.add_index("notice", ("endpoint", "attempts", "next_time")))
