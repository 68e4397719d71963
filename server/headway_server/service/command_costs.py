"""How long a commit is busy with a step, so that none is busy with one caller's for long."""

from collections.abc import Sequence

from headway_server.domain.commands import Command, Create, Update
from headway_server.domain.report import Report
from headway_server.service.commit import Step

ROWS_A_STEP = 4
"""Rows of other tables that are stored in the time that a plain step takes. On SQLite they are twice as fast."""

BYTES_A_STEP = 4096
"""Bytes of a request that are stored in that time."""

PART_WEIGHT = 1000
"""The most that one of `parts` weighs, unless it is a single step: a stream's message of so many plain reports is not
parted. Takes some 50 ms on SQLite, 100 on PostgreSQL."""


def weight(steps: Sequence[Step], size: int = 0) -> int:
    """What the steps of one call weigh, in plain steps. `size`: bytes of the request."""
    rows = sum([_rows(command) for _, command in steps])
    return len(steps) + rows // ROWS_A_STEP + size // BYTES_A_STEP


def parts(steps: Sequence[Step]) -> list[Sequence[Step]]:
    """The steps, in their order, in parts of which none is heavy. Mostly there is one."""
    if weight(steps) <= PART_WEIGHT:
        return [steps]
    found: list[Sequence[Step]] = []
    begin, room = 0, PART_WEIGHT
    for index, step in enumerate(steps):
        taken = weight([step])
        if taken > room and index > begin:
            found.append(steps[begin:index])
            begin, room = index, PART_WEIGHT
        room -= taken
    return [*found, steps[begin:]]


def _rows(command: Command) -> int:
    """Rows that the command may add beside its job's."""
    if isinstance(command, Report):
        return len(command.record_errors)
    return len(command.labels or ()) if isinstance(command, (Create, Update)) else 0
