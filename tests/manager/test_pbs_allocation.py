"""What the manager counts in an allocation of PBS, with commands that do what PBS's do, for one job on this machine."""

import importlib.util
import os

import pytest

from qcg.pilotjob.executor_api import Allocation, BasicTemplate, QCGPJExecutor
from qcg.pilotjob.executor_api._processes.resources import local_cpus

pytestmark = pytest.mark.skipif(importlib.util.find_spec("psij") is None, reason="psij-python is not installed")

COMMANDS = {
    "qsub": """
        grep '^#PBS -l' "$1" > "$PBS_HERE/asked"
        uname -n > "$PBS_HERE/nodes"
        PBS_JOBID=7.server NCPUS=1 PBS_NODEFILE=$PBS_HERE/nodes setsid bash "$1" < /dev/null > /dev/null 2>&1 &
        echo $! > "$PBS_HERE/pid"
        echo 7.server
    """,
    "qstat": """
        state=F
        kill -0 "$(cat "$PBS_HERE/pid")" 2> /dev/null && state=R
        echo '{"Jobs": {"7.server": {"job_state": "'$state'", "Exit_status": 0}}}'
    """,
    "qdel": 'kill -- -"$(cat "$PBS_HERE/pid")"',
}


@pytest.fixture
def pbs(tmp_path, monkeypatch):
    """Put the commands first on the PATH; returns the directory in which they note what was asked for."""
    here = tmp_path / "pbs"
    here.mkdir()
    for name, script in COMMANDS.items():
        (here / name).write_text(f"#!/bin/bash\n{script}\n")
        (here / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")
    monkeypatch.setenv("PBS_HERE", str(here))
    return here


def cores(tmp_path, **options):
    allocation = Allocation(scheduler="pbs", poll=1.0, **options)
    with QCGPJExecutor(wd=tmp_path / "wd", allocation=allocation) as executor:
        assert executor.submit(BasicTemplate, name="a", exec="true").result(90) == {"a": "SUCCEED"}
        (status,) = executor.allocations
    return status.cores, status.message


def test_a_whole_node_is_asked_for_by_one_cpu_and_used_whole(pbs, tmp_path):
    number, said = cores(tmp_path)
    assert "place=scatter:exclhost" in (pbs / "asked").read_text()
    assert number == local_cpus(exclusive=True).number
    assert "NCPUS" not in said


def test_what_is_asked_for_is_used(pbs, tmp_path):
    assert cores(tmp_path, cores_per_node=3) == (3, "")
    assert "ncpus=3" in (pbs / "asked").read_text()
