"""What Slurm's variables and scontrol say of an allocation, as texts of real ones."""

import pytest

from qcg.pilotjob.executor_api import InvalidOption, QCGPJExecutor
from qcg.pilotjob.executor_api._execution.slurm import (
    AllocationUnreadable,
    GrantedNode,
    component_of,
    granted_nodes,
    in_allocation,
)

JOB = (
    "JobId={id} {more}JobName=a NodeList=n[1-3] NumNodes=3 NumCPUs=7 "
    "TRES=cpu=7,node=3 JOB_GRES=(null)   Nodes=n[1,3] CPU_IDs=0-1,4 Mem=0 GRES=   "
    "Nodes=n2 CPU_IDs=7 Mem=100 GRES= MinCPUsNode=1\n"
)


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """Put a scontrol on PATH that prints names of nodes, and a text for the job; returns what tells its arguments."""

    def make(job_text, exit_code=0, names="n1 n2 n3"):
        (tmp_path / "job").write_text(job_text)
        script = f"""#!/bin/sh
            echo "$@" >> {tmp_path}/got
            if [ $2 = hostnames ]; then printf '%s\\n' {names}; exit; fi
            cat {tmp_path}/job >&{2 if exit_code else 1}
            exit {exit_code}
        """
        (tmp_path / "scontrol").write_text(script)
        (tmp_path / "scontrol").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return lambda: sorted((tmp_path / "got").read_text().splitlines())

    return make


def variables(**more):
    return {"SLURM_JOB_ID": "5", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_CPUS_PER_NODE": "3,1,3", **more}


NODES = [GrantedNode("n1", 3, [0, 1, 4]), GrantedNode("n2", 1, [7]), GrantedNode("n3", 3, [0, 1, 4])]


def test_nodes_may_be_uneven(scontrol):
    got = scontrol(JOB.format(id=5, more=""))
    assert granted_nodes(variables()) == NODES
    assert got() == ["show --oneliner --detail job 5", "show hostnames n[1-3]"]


def test_the_last_task_of_an_array_is_not_taken_for_the_array(scontrol):
    got = scontrol(JOB.format(id=5, more="ArrayJobId=5 ArrayTaskId=3 "))
    assert granted_nodes(variables(SLURM_ARRAY_JOB_ID="5", SLURM_ARRAY_TASK_ID="3")) == NODES
    assert "show --oneliner --detail job 5_3" in got()


def test_of_a_heterogeneous_job_one_component_is_looked_at(scontrol):
    other = JOB.format(id=4, more="HetJobId=4 HetJobOffset=0 ").replace("CPU_IDs=7", "CPU_IDs=6")
    got = scontrol(other + JOB.format(id=5, more="HetJobId=4 HetJobOffset=1 "))
    groups = {"SLURM_HET_SIZE": "2", "SLURM_JOB_ID_HET_GROUP_0": "4", "SLURM_JOB_ID_HET_GROUP_1": "5"}
    here = {"SLURM_JOB_NODELIST_HET_GROUP_1": "n[1-3]", "SLURM_JOB_CPUS_PER_NODE_HET_GROUP_1": "3,1,3"}
    environment = variables(SLURM_JOB_ID="4", **groups, **here)
    assert component_of(environment) == (1, 2)
    assert granted_nodes(environment) == NODES
    assert "show --oneliner --detail job 5" in got()
    assert component_of(variables()) is None


def test_numbers_of_nodes_keep_their_zeros(scontrol):
    scontrol("JobId=5 Nodes=a,b[08-10]-x CPU_IDs=3 Mem=0\n", names="a b08-x b09-x b10-x")
    nodes = granted_nodes(variables(SLURM_JOB_CPUS_PER_NODE="1(x4)"))
    assert nodes == [GrantedNode(name, 1, [3]) for name in ("a", "b08-x", "b09-x", "b10-x")]


def test_slurm_need_not_tell_which_cpus(scontrol):
    scontrol("JobId=5 NodeList=n[1-3]\n")
    assert granted_nodes(variables()) == [GrantedNode("n1", 3), GrantedNode("n2", 1), GrantedNode("n3", 3)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"SLURM_JOB_CPUS_PER_NODE": "x"}, "SLURM_JOB_CPUS_PER_NODE is 'x', which is no list like '4(x2),2'"),
        ({"SLURM_JOB_CPUS_PER_NODE": "2(x2)"}, "3 nodes, but SLURM_JOB_CPUS_PER_NODE '2(x2)' is for 2"),
        ({"SLURM_JOB_ID": ""}, "SLURM_JOB_ID is not: start from a new shell"),
    ],
)
def test_variables_that_do_not_fit_are_an_error(scontrol, changes, said):
    scontrol(JOB.format(id=5, more=""))
    with pytest.raises(AllocationUnreadable) as error:
        granted_nodes(variables(**changes))
    assert said in str(error.value)


def test_an_allocation_that_has_ended_is_an_error_that_says_so(scontrol):
    scontrol("slurm_load_jobs error: Invalid job id specified\n", exit_code=1)
    with pytest.raises(AllocationUnreadable, match="this shell is left over from it: start from a new one"):
        granted_nodes(variables())


def test_without_slurms_commands_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AllocationUnreadable, match="'scontrol' cannot be started: No such file or directory; put"):
        granted_nodes(variables())


def test_half_of_the_variables_is_no_allocation():
    assert in_allocation(variables())
    assert not in_allocation({"SLURM_JOB_NODELIST": "n1"})
    assert not in_allocation({"SLURM_JOB_CPUS_PER_NODE": "1", "SLURM_JOB_NODELIST": ""})


def test_a_task_number_that_is_none_is_nobody_elses(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_PROCID", "one")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "")
    with QCGPJExecutor(wd=tmp_path):
        pass


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2", None])
def test_threads_per_core_without_a_meaning_are_refused(threads):
    with pytest.raises(InvalidOption, match="threads_per_core is"):
        QCGPJExecutor(threads_per_core=threads)
