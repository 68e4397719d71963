"""Chance that can be repeated: every test that draws lots prints the seed, and takes it from FAULTS_SEED."""

import os
import random


def seeded(name: str) -> random.Random:
    """A generator of this run's own. `FAULTS_SEED=… pytest …` repeats a run."""
    seed = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**9))
    print(f"{name}: FAULTS_SEED={seed}")
    return random.Random(seed)
