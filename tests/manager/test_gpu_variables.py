"""What an environment tells of GPUs, and what the processes of a job are told; without Slurm."""

import os
import subprocess

import pytest

from qcg.pilotjob.executor_api._execution.gpus import AllocationGpus, Gpus, agent_environment, task_prolog
from qcg.pilotjob.executor_api._execution.slurm import GrantedNode, _gpus_of
from qcg.pilotjob.executor_api._processes import resources
from qcg.pilotjob.executor_api._processes.resources import gpus_in

CUDA, ROCR, HIP, ORDINAL = VARIABLES = resources.VARIABLES[:4]


@pytest.mark.parametrize(
    ("environment", "gpus"),
    [
        ({}, []),
        ({CUDA: ""}, []),
        ({CUDA: "NoDevFiles"}, []),
        ({CUDA: "-1", HIP: "-1", "ZE_AFFINITY_MASK": "9999"}, []),
        ({CUDA: "0,1"}, [{CUDA: "0"}, {CUDA: "1"}]),
        ({CUDA: "GPU-8932f937, MIG-GPU-1/2/0"}, [{CUDA: "GPU-8932f937"}, {CUDA: "MIG-GPU-1/2/0"}]),
        ({"ZE_AFFINITY_MASK": "0.1,1.0"}, [{"ZE_AFFINITY_MASK": "0.1"}, {"ZE_AFFINITY_MASK": "1.0"}]),
        ({CUDA: "0,1", "SLURM_STEP_GPUS": "2,3"}, [{CUDA: str(n), "SLURM_STEP_GPUS": str(n + 2)} for n in (0, 1)]),
        ({CUDA: "0", "ZE_AFFINITY_MASK": "0,1"}, [{CUDA: "0"}]),
    ],
)  # fmt: skip
def test_the_gpus_of_an_environment(environment, gpus):
    assert gpus_in({"PATH": "/bin", **environment}) == gpus


def test_variables_that_count_what_another_one_leaves():
    """HIP_VISIBLE_DEVICES chooses among what ROCR_VISIBLE_DEVICES leaves, so it has places there."""
    gpus = Gpus(gpus_in({ROCR: "4,5,6", HIP: "0,1,2", ORDINAL: "0,1,2"}))
    assert gpus.ids == ["4", "5", "6"]
    assert gpus.variables(["5", "6"]) == {ROCR: "5,6", HIP: "0,1", ORDINAL: "0,1"}
    assert Gpus(gpus_in({HIP: "0,1,2"})).variables(["2"]) == {HIP: "2"}


def test_with_amd_cuda_visible_devices_is_hips(monkeypatch):
    monkeypatch.setattr(resources, "_is_amd", lambda: True)
    assert Gpus(gpus_in({CUDA: "0,1", ROCR: "0,1"})).variables(["1"]) == {ROCR: "1", CUDA: "0"}


def test_gpus_come_back_in_their_order():
    gpus = Gpus([{CUDA: str(number)} for number in range(12)])
    taken = [gpus.allocate(4) for _ in range(3)]
    assert gpus.allocate(1) is None
    for allocation in reversed(taken):
        gpus.release(allocation)
    assert gpus.allocate(12).instances == [str(number) for number in range(12)]


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("", 0),
        ("gpu:2(IDX:0-1)", 2),
        ("gpu:a100:2(IDX:0-1),gpu:h100:1(IDX:2)", 3),
        ("gpu:4", 4),
        ("shard:8(4/4),mps:100,gpu:1(IDX:0,3)", 1),
        ("gpu_mem:80G", 0),
    ],
)
def test_what_slurm_tells_of_the_gpus_of_a_node(gres, count):
    assert _gpus_of(gres) == count


def test_the_agents_find_what_slurm_sets_on_their_node_alone():
    found = agent_environment({CUDA: "0,1", "SLURM_GPUS": "6", "SLURM_GPUS_PER_TASK": "1", "SLURM_JOB_ID": "7"})
    assert found == {"SLURM_JOB_ID": "7"}


@pytest.mark.parametrize("variable", ["SLURM_GPUS", "SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK"])
def test_a_step_asks_for_all_gpus_of_its_node(tmp_path, variable):
    granted = {
        "n1": GrantedNode("n1", 2, gpus=2, unlike={"n2": 4, "n3": 0}),
        "n2": GrantedNode("n2", 2, gpus=4, unlike={"n1": 2, "n3": 0}),
        "n3": GrantedNode("n3", 2, gpus=0, unlike={"n1": 2, "n2": 4}),
    }
    gpus = AllocationGpus({variable: "1"}, str(tmp_path), granted)
    assert gpus.step_options("n2") == ["--gres=gpu:4", "--exclude=n1,n3"]
    assert gpus.step_options("n3") == ["--gres=none", "--exclude=n1,n2"]
    assert AllocationGpus({"SLURM_GPUS_PER_NODE": "1"}, str(tmp_path), granted).step_options("n2") == []


def test_each_node_is_told_its_own(tmp_path):
    own = tmp_path / "it's mine"
    own.write_text("#!/bin/sh\necho export MINE=1\necho export CUDA_VISIBLE_DEVICES=9\n")
    own.chmod(0o755)
    prolog = tmp_path / "prolog"
    nodes = {"n1": {CUDA: "1"}, "n2": {CUDA: "0,1", ROCR: ""}, "n3": {CUDA: "1"}, "n4": {CUDA: "it's $HOME"}}
    prolog.write_text(task_prolog(nodes, str(own)))

    def said(node):
        environment = {**os.environ, "SLURMD_NODENAME": node}
        completed = subprocess.run(["sh", prolog], env=environment, capture_output=True, text=True, check=True)
        return completed.stdout.splitlines()[2:]

    assert said("n1") == said("n3") == [f"export {CUDA}=1"]
    assert said("n2") == [f"export {CUDA}=0,1", f"export {ROCR}="]
    assert said("n4") == [f"export {CUDA}=it's $HOME"]
    assert said("n5") == []
