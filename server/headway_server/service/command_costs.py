"""Estimates how long a commit takes for a step, so that one caller's steps do not occupy a commit for long."""

from collections.abc import Sequence

from headway_server.domain.commands import Command, Create, Update
from headway_server.domain.report import Report
from headway_server.service.commit import Step

ROWS_A_STEP = 4
"""Rows of other tables that take as long to store as a plain step. On SQLite they are twice as fast."""

BYTES_A_STEP = 4096
"""Bytes of a request that take as long to store as a plain step."""

PART_WEIGHT = 1000
"""The largest weight of one of `parts`, unless it is a single step: a stream's message of this many plain reports stays
whole. Such a part takes about 50 ms on SQLite and 100 ms on PostgreSQL."""


def weight(steps: Sequence[Step], size: int = 0) -> int:
    """The weight of the steps of one call, in plain steps. `size`: bytes of the request."""
    rows = sum([_rows(command) for _, command in steps])
    return len(steps) + rows // ROWS_A_STEP + size // BYTES_A_STEP


def parts(steps: Sequence[Step]) -> list[Sequence[Step]]:
    """Split the steps, in their order, into parts of limited weight. Usually there is one part."""
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
    """Rows that the command may add to other tables than the job's."""
    if isinstance(command, Report):
        return len(command.record_errors)
    return len(command.labels or ()) if isinstance(command, (Create, Update)) else 0
