"""The clusters of these tests are what they are said to be: asked without the executor."""

import os
import subprocess
import time

import pytest

pytestmark = pytest.mark.slurm


def srun(cluster, *arguments):
    """Return the lines that a step prints, sorted: those of nodes come in any order."""
    command = ["timeout", "-k", "5", "40", "srun", "-Q", *arguments]
    completed = subprocess.run(
        command, env=cluster.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert completed.returncode == 0, completed.stderr
    return sorted(completed.stdout.splitlines())


def test_jobs_that_share_a_node_are_confined_to_other_cpus(cgroup_cluster, other_job):
    other_job(cgroup_cluster, "-w", "n1", "-n1")
    cpus = sorted(os.sched_getaffinity(0))[:2]
    asked = "import os; os.sched_setaffinity(0, range(os.cpu_count())); print(*os.sched_getaffinity(0))"
    assert srun(cgroup_cluster, "-w", "n1", "-n1", "python3", "-c", asked) == [str(cpus[1])]
    assert srun(cgroup_cluster, "-w", "n2", "-n1", "python3", "-c", asked) == [str(cpus[0])]


def test_a_job_has_its_part_of_the_memory(cgroup_cluster):
    script = "cat /sys/fs/cgroup/memory/$(grep :memory: /proc/self/cgroup | cut -d: -f3)/../memory.limit_in_bytes"
    assert srun(cgroup_cluster, "-n1", "sh", "-c", script) == [str(2000 * 2**20)]


def test_gpus_are_told_to_each_node(gpu_cluster, other_job):
    other_job(gpu_cluster, "-w", "n1", "-n1", "--gres=gpu:1")
    told = srun(gpu_cluster, "-N2", "--gres=gpu:1", "sh", "-c", "echo $(hostname) $CUDA_VISIBLE_DEVICES")
    assert told == ["n1 1", "n2 0"]
    assert srun(gpu_cluster, "-w", "n2", "--gres=gpu:4", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES") == ["0,1,2,3"]


def test_an_allocation_can_have_other_cpus_on_each_node(cgroup_cluster, other_job, allocation_of):
    other_job(cgroup_cluster, "-w", "n1", "-n1")
    run = allocation_of(cgroup_cluster, "-N2", "-n2")
    said = run("import os; os.execlp('scontrol', 'scontrol', 'show', '-d', 'job', os.environ['SLURM_JOB_ID'])").stdout
    assert [word for word in said.split() if word.startswith("CPU_IDs=")] == ["CPU_IDs=1", "CPU_IDs=0"]


def test_cpus_differ_from_node_to_node_and_heterogeneous_jobs_start_at_once(cluster_module):
    made = cluster_module.Cluster(cpus={"n1": 1, "n2": 2})
    made.start()
    try:
        assert srun(made, "-N2", "--exclusive", "sh", "-c", "echo $SLURM_JOB_CPUS_PER_NODE") == ["1,2"] * 2
        begun = time.monotonic()
        assert srun(made, "-w", "n1", "hostname", ":", "-w", "n2", "hostname") == ["n1", "n2"]
        assert time.monotonic() - begun < 20  # backfill looks each second here, and each half minute by default
    finally:
        made.stop()
    assert made.left() == []


def test_clusters_with_cgroups_do_not_meet(cgroup_cluster, cluster_module):
    made = cluster_module.Cluster(nodes=1, cgroups=True)
    made.start()
    try:
        assert made.left()
        srun(made, "true")
    finally:
        made.stop()
    assert made.left() == []
    srun(cgroup_cluster, "-N2", "true")


def test_what_a_job_leaves_ends_with_the_cluster(cluster_module, cgroup_cluster):
    made = cluster_module.Cluster(nodes=1, cgroups=True)
    made.start()
    try:
        # its step's end would end it, so it is taken out of Slurm's reach: into the group of the cluster itself
        script = "echo $$ > /sys/fs/cgroup/freezer/cgroup.procs; setsid sleep 987 > /dev/null 2>&1 & echo $!"
        os.kill(int(srun(made, "bash", "-c", script)[0]), 0)
    finally:
        made.stop()
    assert made.left() == []  # a group goes when nothing in it lives
