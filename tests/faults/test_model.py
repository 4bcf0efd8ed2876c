"""Random runs with random faults are as the model allows: nothing that ended runs again, nothing is lost, or twice.

REPETITIONS in the environment says how many; SEED makes them others. ``random_runs.py`` makes them for an hour.
"""

import os

import pytest
from random_runs import RandomRun

REPETITIONS = int(os.environ.get("REPETITIONS", "4"))
SEED = os.environ.get("SEED", "")


@pytest.mark.parametrize("number", range(REPETITIONS))
def test_a_random_run(tmp_path, number):
    print(f"seed {SEED}.{number}")
    RandomRun(tmp_path, f"{SEED}.{number}").make(steps=15)
