"""The same as growth, with ten million jobs stored: it takes some six minutes and 6 GB of disk."""

from benchmarks import growth
from benchmarks.figures import Section

SIZES = (growth.SIZES[0], 10_000_000)


def run(rounds: int) -> Section:
    return growth.run(rounds, SIZES)
