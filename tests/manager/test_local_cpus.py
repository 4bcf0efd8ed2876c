"""Which CPUs of this machine jobs get when nothing is said: those that this process may use."""

import importlib.util
import json
import os
import re
import sys
import uuid
from pathlib import Path

import pytest

from qcg.pilotjob.executor_api import Allocation, BasicTemplate, QCGPJExecutor
from qcg.pilotjob.executor_api._processes import cpus, resources
from qcg.pilotjob.executor_api._processes.resources import local_cpus

HERE = os.uname().nodename
CPUS = sorted(os.sched_getaffinity(0))
V1 = Path("/sys/fs/cgroup/cpu")
BATCH = re.compile("PBS_|LSB_|SGE_|SLURM_|NCPUS$|NSLOTS$|PE_HOSTFILE$|PYTHON_CPU_COUNT$")

several_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="this process may use one CPU only")
COUNT = """
    import json, os, sys
    {before}
    from qcg.pilotjob.executor_api import *
    with QCGPJExecutor({options}) as executor:
        pool = executor.functions()
        print(json.dumps([executor.qcgpj_manager.resources()["total_cores"], pool._max_workers]))
"""


@pytest.fixture(autouse=True)
def outside_batch_systems(monkeypatch):
    for name in filter(BATCH.match, list(os.environ)):
        monkeypatch.delenv(name)


@pytest.fixture
def count(run_script):
    """Run a program and return how many cores and workers it has, and what it says on standard error."""

    def count(before="", options="", env=None):
        done = run_script(COUNT.format(before=before, options=options), env=env)
        cores, workers = json.loads(done.stdout)
        assert cores == workers
        return cores, done.stderr

    return count


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Pretend a machine of so many CPUs, of which this process may use some, with a quota in cgroup v2."""

    def machine(cpus, usable=None, quota=None, environ=None, **options):
        monkeypatch.setattr(os, "sysconf", lambda _: cpus)
        monkeypatch.setattr(os, "cpu_count", lambda: cpus)
        monkeypatch.setattr(resources, "usable_cpus", lambda: list(range(cpus if usable is None else usable)))
        proc = tmp_path / "proc/self"
        proc.mkdir(parents=True)
        (proc / "cgroup").write_text("0::/\n")
        (proc / "mountinfo").write_text("24 23 0:22 / /cgroup rw - cgroup2 cgroup2 rw\n")
        (tmp_path / "cgroup").mkdir()
        (tmp_path / "cgroup/cpu.max").write_text(quota or "max 100000")
        return local_cpus(tmp_path, environ or {}, **options)

    return machine


# ---- the least of all limits, and what is said of it


def test_the_whole_machine_is_used_without_a_word(machine):
    assert machine(64).note == ""


def test_a_part_of_a_cpu_does_not_count(machine):
    assert machine(64, quota="250000 100000").note == "using 2 of 64 CPUs: the cgroup's quota is 2.5"


def test_one_cpu_is_always_used(machine):
    assert machine(64, quota="30000 100000").note == "using 1 of 64 CPUs: the cgroup's quota is 0.3"


def test_a_quota_of_more_than_the_machine_is_none(machine):
    assert machine(4, quota="800000 100000") == (4, 4, "")


def test_the_affinity(machine):
    found = machine(64, usable=8, quota="900000 100000")
    assert found.note == "using 8 of 64 CPUs: the affinity of this process (taskset, cpuset) has 8"


def test_two_limits_that_are_the_same(machine):
    found = machine(64, usable=2, quota="250000 100000")
    assert found.number == 2
    assert found.reason.endswith(" has 2 and the cgroup's quota is 2.5")


def test_a_share_of_a_batch_system_within_the_affinity(machine):
    found = machine(64, usable=32, environ={"PBS_JOBID": "1", "NCPUS": "16"})
    assert found.note == "using 16 of 64 CPUs: NCPUS of the PBS job is 16 (resources= gives another number)"


def test_a_share_of_more_than_the_affinity_is_no_limit(machine):
    assert machine(64, usable=4, environ={"PBS_JOBID": "1", "NCPUS": "16"}).number == 4


def test_a_node_that_nobody_else_has_is_used_whatever_the_job_asked_for(machine):
    assert machine(64, usable=32, environ={"PBS_JOBID": "1", "NCPUS": "1"}, exclusive=True).number == 32


# ---- batch systems


@pytest.mark.parametrize(
    ("ncpus", "lines", "number"),
    [
        ("1", [HERE], 1),
        ("4", [HERE], 4),  # ncpus=4
        ("4", [HERE] * 4, 4),  # ncpus=4:mpiprocs=4
        ("1", [HERE] * 64, 64),  # ncpus=64:mpiprocs=64:ompthreads=1
        ("4", [HERE] * 16, 64),  # ncpus=64:mpiprocs=16:ompthreads=4
        ("8", [HERE, "other"], 8),
        ("1", [f"{HERE}.site.org", "other", f"{HERE}.site.org"], 2),
        ("8", ["other"], 8),
        ("8", None, 8),
        (None, [HERE] * 3 + ["other"], 3),  # Torque: nodes=2:ppn=3
        (None, ["other"], None),
        ("many", None, None),
        (None, None, None),
    ],
)
def test_pbs(tmp_path, ncpus, lines, number):
    environ = {"PBS_JOBID": "7.server", "PBS_NODEFILE": str(tmp_path / "nodes")}
    if lines is not None:
        (tmp_path / "nodes").write_text("".join(f"{line}\n" for line in lines))
    if ncpus is not None:
        environ["NCPUS"] = ncpus
    share = cpus.share(environ)
    assert (share and share[0]) == number


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({"LSB_MCPU_HOSTS": f"{HERE} 6", "LSB_DJOB_NUMPROC": "6"}, 6),
        ({"LSB_MCPU_HOSTS": f"batch5 1 {HERE}.site.org 42", "LSB_DJOB_NUMPROC": "43"}, 42),
        ({"LSB_MCPU_HOSTS": "other 6", "LSB_DJOB_NUMPROC": "6"}, 6),
        ({"LSB_DJOB_NUMPROC": "5"}, 5),
        ({}, None),
    ],
)
def test_lsf(variables, number):
    share = cpus.share({"LSB_JOBID": "7", **variables})
    assert (share and share[0]) == number


@pytest.mark.parametrize(
    ("hosts", "slots", "number"),
    [(f"other 2 all.q@other <NULL>\n{HERE} 3 all.q@{HERE} <NULL>\n", "5", 3), (None, "1", 1), (None, None, None)],
)
def test_grid_engine(tmp_path, hosts, slots, number):
    environ = {"SGE_TASK_ID": "undefined"}
    if hosts:
        environ["PE_HOSTFILE"] = str(tmp_path / "hosts")
        (tmp_path / "hosts").write_text(hosts)
    if slots:
        environ["NSLOTS"] = slots
    share = cpus.share(environ)
    assert (share and share[0]) == number


def test_variables_without_a_job_mean_nothing():
    assert cpus.share({"NCPUS": "1", "NSLOTS": "1", "OMP_NUM_THREADS": "1"}) is None


# ---- with the manager


@several_cpus
def test_an_affinity_of_one_cpu(count):
    cores, said = count(before=f"os.sched_setaffinity(0, {{{CPUS[-1]}}})")
    assert cores == 1
    assert said == f"qcgpj: using 1 of {os.cpu_count()} CPUs: the affinity of this process (taskset, cpuset) has 1\n"


@several_cpus
def test_nobody_can_be_told(count):
    before = f"os.sched_setaffinity(0, {{{CPUS[0]}}}); sys.stderr.close()"
    assert count(before=before) == (1, "")


@several_cpus
def test_a_number_that_is_given_beats_the_affinity(count):
    assert count(before=f"os.sched_setaffinity(0, {{{CPUS[0]}}})", options="resources=3") == (3, "")


@several_cpus
def test_a_job_of_pbs_without_cpusets(count):
    cores, said = count(env={"PBS_JOBID": "7", "NCPUS": "1"})
    assert cores == 1
    assert "NCPUS of the PBS job is 1" in said


@several_cpus
@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python has it from 3.13 on")
def test_python_is_told_how_many_there_are(count):
    cores, said = count(env={"PYTHON_CPU_COUNT": "1"})
    assert cores == 1
    assert "PYTHON_CPU_COUNT is 1" in said


@several_cpus
@pytest.mark.skipif(importlib.util.find_spec("psij") is None, reason="psij-python is not installed")
def test_an_allocation_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("LSB_JOBID", "7")
    monkeypatch.setenv("LSB_DJOB_NUMPROC", "1")
    with QCGPJExecutor(wd=tmp_path, allocation=Allocation(scheduler="local", poll=1.0)) as executor:
        assert executor.submit(BasicTemplate, name="a", exec="true").result(90) == {"a": "SUCCEED"}
        (status,) = executor.allocations
    assert status.cores == 1
    assert "LSB_DJOB_NUMPROC of the LSF job is 1" in status.message


@pytest.fixture
def quota_group():
    """A group of cgroup v1 below another one, whose quota is that of one CPU and a half."""
    if os.geteuid() != 0 or not os.access(V1 / "cpu.cfs_quota_us", os.W_OK):
        pytest.skip("only root can make groups, and only where cgroup v1 has the CPUs")
    outer = V1 / f"qcgpj-test-{uuid.uuid4().hex}"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    (outer / "cpu.cfs_quota_us").write_text("150000")
    yield inner
    for group in (inner, outer):
        for process in (group / "cgroup.procs").read_text().split():
            (V1 / "cgroup.procs").write_text(process)
        group.rmdir()


@several_cpus
def test_a_real_quota_of_the_group_above(quota_group, count):
    before = f"open({str(quota_group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))"
    cores, said = count(before=before)
    assert cores == 1
    assert said == f"qcgpj: using 1 of {os.cpu_count()} CPUs: the cgroup's quota is 1.5\n"


def test_a_machine_that_is_used_whole_has_no_word_for_it(count):
    if local_cpus().note:
        pytest.skip("these tests may not use the whole machine")
    assert count() == (os.cpu_count(), "")
