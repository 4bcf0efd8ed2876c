"""A Slurm cluster for the tests here, and a way to run programs in an allocation of it."""

from __future__ import annotations

import fcntl
import functools
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import processes
import pytest

_MARK = "QCGPJ_TEST_RUN"
_FIRST = f"import sys; sys.path.append({str(Path(processes.__file__).parent)!r})\n"  # for the module `processes`
_BOTH = ("-N2", "--exclusive")
_LEFT_SECONDS = 30.0  # a step that has to be ended takes Slurm KillWait seconds and a little more

_MPI_PROGRAM = r"""
#include <mpi.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int rank, size, sum;
    char host[256];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    gethostname(host, sizeof host);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("%d %d %s %d\n", rank, size, host, sum);
    MPI_Finalize();
    return 0;
}
"""


def _cluster_module():
    # tests are no package, and their directories are not on the path
    spec = importlib.util.spec_from_file_location("slurm_cluster", Path(__file__).with_name("cluster.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cluster_module():
    """The module `cluster`, where a cluster can be brought up."""
    module = _cluster_module()
    reason = module.why_not()
    if reason:
        pytest.skip(f"no Slurm cluster: {reason}")
    return module


def _running(made):
    made.start()
    yield made
    made.stop()
    assert made.left() == []


@pytest.fixture(scope="module")
def cluster(cluster_module, temporary_directory):
    """A cluster of two nodes with two CPUs each."""
    yield from _running(cluster_module.Cluster())


@pytest.fixture(scope="session")
def cgroup_cluster(cluster_module, temporary_directory):
    """The same with control groups: what runs is confined to its CPUs, and its part of a node's 4000 MiB of memory."""
    reason = cluster_module.why_not(cgroups=True)
    if reason:
        pytest.skip(f"no Slurm cluster with cgroups: {reason}")
    yield from _running(cluster_module.Cluster(cgroups=True, memory=4000))


@pytest.fixture(scope="session")
def gpu_cluster(cluster_module, temporary_directory):
    """A cluster of two nodes with two CPUs each, where n1 has two GPUs and n2 has four; no program can open them."""
    yield from _running(cluster_module.Cluster(gpus={"n1": 2, "n2": 4}))


@pytest.fixture
def other_job():
    """Start a job of somebody else in a cluster, with options of sbatch, that keeps what it is given until the end."""
    clusters = []

    def start(cluster, *options):
        clusters.append(cluster)
        return cluster.start_other_job(*options)

    yield start
    for cluster in clusters:
        cluster.cancel_other_jobs()


@pytest.fixture
def allocation_of(tmp_path):
    """Return what `in_allocation` is for an allocation of any cluster, with any options of salloc."""
    return functools.partial(_runner, tmp_path=tmp_path)


@pytest.fixture
def in_allocation(cluster, tmp_path):
    """Run Python source in an allocation of both nodes, as a user would; returns the completed process.

    Whatever the source does, no process of it may be left a moment later, and the allocation must have ended.
    """
    return _runner(cluster, *_BOTH, tmp_path=tmp_path)


@pytest.fixture
def with_gpus(gpu_cluster, tmp_path):
    """Run Python source in an allocation of all GPUs, or of those that the options of salloc say."""

    def run(source, *arguments, options=("--gpus=6",), **more):
        return _runner(gpu_cluster, *_BOTH, *options, tmp_path=tmp_path)(source, *arguments, **more)

    return run


@pytest.fixture
def in_allocation_of_its_own(cluster_module, temporary_directory, tmp_path):
    """The same in a cluster that the source may break; the allocation outlives its nodes."""
    made = cluster_module.Cluster()
    for running in _running(made):
        yield _runner(running, *_BOTH, "--no-kill", tmp_path=tmp_path)


@pytest.fixture
def outside(cluster, monkeypatch):
    """This process on a login node: not in an allocation, and the cluster's commands work.

    Returns a function for the processes that are there because of it: all but the programs of Slurm. None of them, and
    no allocation, may be left a moment after the test.
    """
    mark = uuid.uuid4().hex
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SALLOC_"))]:
        monkeypatch.delenv(name)
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    monkeypatch.setenv(_MARK, mark)
    yield lambda: _marked(mark)
    try:
        _assert_nothing_left(cluster, mark)
    finally:
        cluster.cancel_jobs()
        for process in _marked(mark):
            processes.kill(process)


def _runner(cluster, *options, tmp_path):
    def run(source, *arguments, limit=40, check=True, env=None, umask=-1):
        mark = uuid.uuid4().hex
        # the inner limit ends the program, which salloc would leave behind; the outer one ends a salloc that hangs
        limits = ["timeout", "-k", "5", str(limit)]
        command = [sys.executable, "-c", _FIRST + textwrap.dedent(source), *map(str, arguments)]
        try:
            completed = subprocess.run(
                ["salloc", "-Q", *options, *limits, *command],
                cwd=tmp_path,
                env={**cluster.environment, **(env or {}), _MARK: mark},
                umask=umask,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=limit + 30,
                check=False,
            )
            _assert_nothing_left(cluster, mark, completed.stdout, completed.stderr)
        finally:
            cluster.cancel_jobs()
            for process in _marked(mark):
                processes.kill(process)
        if check and completed.returncode != 0:
            logs = "\n".join(path.read_text()[-3000:] for path in tmp_path.glob(".qcgpjm-service-*/service.log"))
            pytest.fail(f"exit code {completed.returncode}\n{completed.stdout}\n{completed.stderr}\n{logs}")
        return completed

    return run


def _assert_nothing_left(cluster, mark, *said):
    end = time.monotonic() + _LEFT_SECONDS
    # the last look counts: at one more there may be what this one could not see, as a process within its exec
    while ((left := _marked(mark)) or cluster.jobs()) and time.monotonic() < end:
        time.sleep(0.02)
    assert not [f"{process.pid}: {' '.join(processes.words(process))[:200]}" for process in left], said
    assert not cluster.jobs(), said


def _marked(mark):
    """Return the processes of a run: srun and the agents hand the environment on to the jobs on every node."""
    return processes.living(**{_MARK: mark})


@pytest.fixture
def mpi_alone():
    """No other worker of pytest runs an MPI job: they are known by numbers, which each cluster has, and then crash."""
    with open(__file__, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _need_a_way_between_nodes():
    # the nodes are one machine with one network address, to which Open MPI has no route that leads elsewhere
    if shutil.which("mpirun") is None:
        return
    version = subprocess.run(["mpirun", "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    if re.search(r"\(Open MPI\) ([5-9]|\d\d)", version):
        pytest.skip("Open MPI 5 and newer find no way between nodes that share a network address")


@pytest.fixture
def for_mpi(tmp_path_factory, mpi_alone):
    """What Open MPI needs here: no other, leave to run as root, and a directory where it may leave what it forgets."""
    _need_a_way_between_nodes()
    directory = tmp_path_factory.mktemp("ompi")
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    # by Slurm's other algorithm a rank may leave MPI_Init too early, and what it sends crashes one that is in it still
    return {**allowed, "OMPI_MCA_orte_tmpdir_base": str(directory), "SLURM_PMIX_FENCE": "ring"}


@pytest.fixture(scope="module")
def mpi_program(tmp_path_factory):
    """A compiled program that prints its rank, the number of ranks, its host, and the sum of all ranks."""
    for program in ("mpicc", "mpirun"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here; Debian has it in libopenmpi-dev and openmpi-bin")
    _need_a_way_between_nodes()
    directory = tmp_path_factory.mktemp("mpi")
    (directory / "sum.c").write_text(_MPI_PROGRAM)
    subprocess.run(["mpicc", "-o", "sum", "sum.c"], cwd=directory, check=True, timeout=60)
    return directory / "sum"


@pytest.fixture
def cluster_command(cluster_module, tmp_path, wait_until):
    """Start ``python cluster.py``; returns the process and the SLURM_CONF that it printed."""
    started = []

    def start():
        output = tmp_path / "cluster.out"
        with output.open("wb") as file:
            process = subprocess.Popen([sys.executable, cluster_module.__file__], stdout=file, stderr=subprocess.STDOUT)
        started.append(process)
        wait_until(lambda: b"Ctrl-C" in output.read_bytes() or process.poll() is not None, "the cluster", 60)
        lines = output.read_text().splitlines()
        found = [line.partition("SLURM_CONF=")[2] for line in lines if "SLURM_CONF=" in line]
        assert found, lines
        return process, found[0]

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
