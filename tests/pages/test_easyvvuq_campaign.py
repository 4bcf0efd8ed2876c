"""EasyVVUQ as it is on PyPI, with this package under its QCGPJPool: the example, and the pool by itself."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import processes
import pytest

from qcg.pilotjob.executor_api import RunRecord

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "easyvvuq"
NEW = 1  # EasyVVUQ's number for a run without a result, in its database

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("easyvvuq") is None, reason="easyvvuq is not installed: it comes with the extra clients"
)


def _of_session(session):
    return [processes.words(process) for process in processes.living() if processes.session(process) == session]


def _start(*command, cwd):
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONWARNINGS", "PYTHONDEVMODE")}
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip


def _missing(database):
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return {str(run) for (run,) in connection.execute("select id from run where status = ?", [NEW])}


def _stored(said):
    return re.findall(r"^run (\d+) is stored$", said, re.MULTILINE)


@pytest.fixture
def example(tmp_path):
    """A copy, as a user has it, and a solver that stumbles over one of the nine samples and hangs at the last ones."""
    directory = shutil.copytree(EXAMPLE, tmp_path / "example", ignore=shutil.ignore_patterns("__pycache__"))
    solver = directory / "cup.py"
    stumbles = """number = int(Path.cwd().name.rpartition("_")[2])
    if number == 2:
        sys.exit("cup.py: the spoon is missing")
    if number > 4:
        __import__("time").sleep(1000)
    temperature ="""
    solver.write_text(solver.read_text().replace("temperature =", stumbles, 1))
    return directory


def test_what_failed_and_what_was_interrupted_runs_again_and_nothing_else(example, tmp_path):
    command, wd = (example / "campaign.py", "--wd", "tea"), tmp_path / "tea"
    with _start(*command, cwd=tmp_path) as process:
        session, said = process.pid, ""
        while said.count("is stored") < 3 or "FAILED" not in said:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said += line
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=120)[0]
    assert process.returncode == -signal.SIGINT
    assert _of_session(session) == []
    assert "job '2' FAILED with exit code 1" in said
    [stderr] = re.findall(r"stderr: +(.*)", said)
    assert "cup.py: the spoon is missing\n" in Path(stderr).read_text()
    missing = _missing(wd / "campaign.db")
    assert {"2"} < missing
    assert not missing & set(_stored(said))
    interrupted = RunRecord.of(wd).runs

    shutil.copy(EXAMPLE / "cup.py", example)
    with _start(*command, cwd=tmp_path) as process:
        session = process.pid
        said, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert errors == ""
    assert _of_session(session) == []
    assert sorted(_stored(said)) == sorted(missing)
    assert sorted(row["name"] for row in RunRecord.of(wd) if row["run"] not in interrupted) == sorted(missing)
    assert _missing(wd / "campaign.db") == set()
    values = {line[:10].strip(): float(line[10:19]) for line in said.splitlines()[-4:]}
    assert values == pytest.approx(
        {"mean": 48.755, "deviation": 8.43, "of cooling": 0.954, "of room": 0.0446}, abs=5e-3
    )


POOL = """
import os, sys
import chaospy, easyvvuq
from easyvvuq.actions import *

def square(params):
    if params["x"] > 0 and not os.path.exists("mended"):
        sys.exit("no root of that")
    return {"y": params["x"] ** 2}

campaign = easyvvuq.Campaign(
    "squares", {"x": {"type": "float", "default": 0.0}}, Actions(CreateRunDirectory("."), ExecutePython(square))
)
campaign.set_sampler(easyvvuq.sampling.PCESampler({"x": chaospy.Uniform(-1, 1)}, polynomial_order=1))

try:
    with QCGPJPool(template_params={"venv": sys.prefix}, polling_interval=0.05) as pool:
        campaign.execute(pool=pool).collate()
except RuntimeError as error:
    print(error)
open("mended", "w").close()
params = {"venv": sys.prefix, "numCores": 2}
with QCGPJPool(template=EasyVVUQParallelTemplate(), template_params=params, polling_interval=0.05) as pool:
    campaign.execute(pool=pool).collate()
print(campaign.get_collation_result()["y"].values.round(6).tolist())
"""


def test_the_pool_by_itself_with_each_of_its_templates(tmp_path):
    with _start("-c", POOL, cwd=tmp_path) as process:
        session = process.pid
        said, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert _of_session(session) == []
    assert said.splitlines() == ["QCG-PilotJob task 2 finished with the status: FAILED", "[[0.333333], [0.333333]]"]
    rows = [(row["name"], row["state"], row["cores"]) for row in RunRecord.of(tmp_path)]
    assert {("1", "SUCCEED", 1), ("2", "FAILED", 1), ("2", "SUCCEED", 2)} <= set(rows)
