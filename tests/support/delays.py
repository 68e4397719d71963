"""Commits that PostgreSQL delays, as a slow disk or a standby far away would."""

import psycopg

_DELAY = """
CREATE TABLE delay (share double precision, seconds double precision);
INSERT INTO delay VALUES ({share}, {seconds});
CREATE FUNCTION delay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_sleep({length}) FROM delay WHERE random() < share;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER delay AFTER INSERT ON change_log DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION delay();
"""


def delay_commits(database: str, share: float, seconds: float, *, at_random: bool = False) -> None:
    """Let this share of commits that change jobs take so many seconds longer, `at_random`: up to so many. Both can be
    changed in the table `delay`."""
    length = "random() * seconds" if at_random else "seconds"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(_DELAY.format(share=share, seconds=seconds, length=length).encode())
