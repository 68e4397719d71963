"""All attacks at once: the server stays ready, and within its memory. The command also tells how fast it is."""

import os
from pathlib import Path

from tests.faults import worst_mix

SECONDS = float(os.environ.get("WORST_MIX_SECONDS", "12"))


def test_the_server_stays_within_its_bounds_whatever_callers_send(tmp_path: Path) -> None:
    outcome = worst_mix.run(tmp_path, SECONDS)
    print(outcome)
    assert outcome.crossed_bounds() == []
