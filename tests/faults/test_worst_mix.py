"""All attacks at once: honest callers are served all the while, and the memory is free again afterwards."""

import os
from pathlib import Path

from tests.faults import worst_mix

SECONDS = float(os.environ.get("WORST_MIX_SECONDS", "12"))


def test_honest_callers_are_served_whatever_others_send(tmp_path: Path) -> None:
    outcome = worst_mix.run(tmp_path, SECONDS)
    print(outcome)
    assert outcome.complaints() == []
