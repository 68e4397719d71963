"""Two servers on one PostgreSQL under faults, in short. `python -m tests.faults.stress_two_servers` takes longer."""

from pathlib import Path

from tests.faults import stress_two_servers
from tests.support.postgres import Postgres


def test_two_servers_keep_their_promises_under_faults(postgresql: Postgres, tmp_path: Path) -> None:
    outcome = stress_two_servers.run(postgresql, tmp_path, 4, together=4, share=0.05, delay=3.0)
    print(outcome)
    assert outcome.complaints() == []
