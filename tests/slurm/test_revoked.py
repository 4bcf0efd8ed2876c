"""The end of an allocation that Slurm revokes, where control groups keep its signals from the batch script."""

import importlib.util
import os
import subprocess

import pytest

from qcg.pilotjob.executor_api import Allocation, AllocationEnded, QCGPJExecutor, ScriptTemplate

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(importlib.util.find_spec("psij") is None, reason="psij-python is not installed"),
]


def test_the_manager_asks_slurm_and_the_guard_does_not_wait_for_the_next_poll(
    cgroup_cluster, tmp_path, monkeypatch, wait_until
):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SALLOC_"))]:
        monkeypatch.delenv(name)
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cgroup_cluster.environment[name])
    allocation = Allocation(nodes=1, walltime="5m", queue="p", cores_per_node=1, poll=300.0)
    executor = QCGPJExecutor(wd=tmp_path, allocation=allocation)
    job = executor.submit(ScriptTemplate, name="a", script="touch begun; sleep 300")
    wait_until((tmp_path / "begun").exists, "the job", 60)
    subprocess.run(["scancel", executor.allocations[0].id], check=True)
    wait_until(lambda: executor.allocations[0].state == "ENDED", "the end of the allocation", 60)
    with pytest.raises(AllocationEnded, match="its manager's last words: "):  # which it has not when it is killed
        job.result(60)
    executor.shutdown()
