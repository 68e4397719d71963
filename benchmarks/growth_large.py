"""The same as growth, with ten million jobs stored: it takes some ten minutes and 7 GB of disk."""

from benchmarks import growth
from benchmarks.figures import Section

SIZES = (growth.SIZES[0], 10_000_000)


def run(rounds: int) -> Section:
    return growth.run(rounds, SIZES)
