"""Libraries that take an executor get a pool: each example runs as it is, where its library is installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "functions"


@pytest.mark.parametrize(
    ("name", "library", "said"),
    [
        ("first.py", "cloudpickle", "0.0370\n['0.5820', '1.5415', '2.5277']\n"),
        ("optimise.py", "scipy", "[1.0, 1.0]\n"),
        ("dask_graph.py", "dask", "2000000\n"),
        ("campaign.py", "easyvvuq", "0.2500\n"),
    ],
)
def test_the_example(tmp_path, name, library, said):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: it comes with the extra clients")
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == said
