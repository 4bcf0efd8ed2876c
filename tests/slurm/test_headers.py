"""What users write at the head of their batch scripts: jobs use every CPU that Slurm gives, and no other.

The table of docs/slurm.md has a row for each of them, which has to say what is measured here, with every Slurm that
these tests run on.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

ROWS = dict(
    re.findall(
        r"^\| (`--.*?|`srun.*?) \| (\d+ \| \d+ \| \d+) \|$",
        (Path(__file__).parents[2] / "docs" / "slurm.md").read_text(),
        re.MULTILINE,
    )
)

# As many jobs as there are cores wait for each other, and others follow; each tells which CPUs it may use.
PROBE = r"""
import json, os, re, sys
from pathlib import Path
from qcg.pilotjob.executor_api import JobFailed, QCGPJExecutor, ScriptTemplate

MEET = '''touch $N.here; for i in $(seq 1200); do test $(ls *.here | wc -l) -ge $ALL && break; sleep 0.05; done
test $(ls *.here | wc -l) -ge $ALL && echo $(hostname) $(taskset -cp $$ | cut -d: -f2)'''
counts = re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ["SLURM_JOB_CPUS_PER_NODE"])
found = {"given": sum(int(cpus) * int(times or 1) for cpus, times in counts), "failed": []}
wd = Path(sys.argv[1]) / os.environ.get("SLURM_ARRAY_TASK_ID", "")
with QCGPJExecutor(wd=wd, **json.loads(sys.argv[2])) as executor:
    resources = executor.qcgpj_manager.resources()
    number = found["used"] = resources["total_cores"]
    jobs = [
        executor.submit(ScriptTemplate, name=f"j{n}", script=MEET, env={"N": f"j{n}", "ALL": str(number)})
        for n in range(3 * number)
    ]
    for job in jobs:
        try:
            job.raise_for_status(60)
        except JobFailed as error:
            found["failed"].append(str(error))
found["places"] = [(wd / f"j{n}.out").read_text().strip() for n in range(number) if (wd / f"j{n}.out").exists()]
(wd / "found.tmp").write_text(json.dumps(found))
(wd / "found.tmp").rename(wd / "found.json")
"""
ARRAY = "`--array=0-1 --ntasks=1`"


@pytest.fixture(scope="module")
def wide(cluster_module, temporary_directory):
    """A cluster of two nodes with eight CPUs each, as it is told, where jobs are not bound to any."""
    made = cluster_module.Cluster(cpus=8)
    made.start()
    yield made
    made.stop()
    assert made.left() == []


@pytest.fixture(scope="module", params=["cgroups", "no cgroups"])
def either(request):
    """A cluster of two nodes with two CPUs each, where cgroups confine jobs to theirs, and one without cgroups."""
    return request.getfixturevalue("cgroup_cluster" if request.param == "cgroups" else "cluster")


@pytest.fixture
def probe(tmp_path, wait_until):
    """Run the probe in an allocation of a cluster; returns what it has found, and what it has said."""

    def run(cluster, options, before=(), part="", **arguments):
        (tmp_path / "probe.py").write_text(PROBE)
        command = [*before, sys.executable, "probe.py", "wd", json.dumps(arguments)]
        header = "".join(f"#SBATCH {option}\n" for option in ["--output=said.%a", *options])
        (tmp_path / "job.sh").write_text(f"#!/bin/bash\n{header}timeout -k 5 100 {' '.join(map(_quoted, command))}\n")
        sent = subprocess.run(
            ["sbatch", "job.sh"], cwd=tmp_path, env=cluster.environment, check=False, capture_output=True, text=True
        )
        assert sent.returncode == 0, sent.stderr
        try:
            wait_until(lambda: not cluster.jobs(), "the end of the allocation", 150)
        finally:
            cluster.cancel_jobs()
        said = "\n".join(path.read_text() for path in tmp_path.glob("said.*"))
        result = tmp_path / "wd" / part / "found.json"
        assert result.exists(), said
        found = json.loads(result.read_text())
        assert found["failed"] == []
        return found, said

    return run


def _quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def _row(found):
    return f"{found['given']} | {found['used']} | {len(found['failed'])}"


@pytest.mark.parametrize(
    "options",
    [
        "--nodes=2",
        "--nodes=2 --exclusive",
        "--nodes=2 --ntasks=3",
        "--nodes=2 --ntasks-per-node=2",
        "--ntasks=1 --cpus-per-task=2",
        "--ntasks=2 --cpus-per-task=2",
        "--nodes=1 --ntasks=2 --overcommit",
        "--nodes=1 --ntasks=2 --hint=nomultithread",
        "--ntasks=2 --mem-per-cpu=300",
        "--nodes=2 --ntasks=4 --distribution=cyclic",
    ],
)
def test_each_cpu_is_used_by_one_job_at_a_time(either, probe, options):
    if "mem" in options and not either.memory:
        pytest.skip("the nodes of this cluster have no memory to ask for")
    found, said = probe(either, options.split())
    assert ROWS[f"`{options}`"] == _row(found)
    assert len(set(found["places"])) == len(found["places"]) == found["given"]
    assert all(re.fullmatch(r"n\d \d", place) for place in found["places"])
    assert not re.search("^qcgpj: (?!waiting)", said, re.MULTILINE)


@pytest.mark.parametrize(
    "options",
    [
        "--nodes=2 --exclusive",
        "--ntasks=5",
        "--ntasks=1 --cpus-per-task=4",
        "--nodes=2 --ntasks=3 --cpus-per-task=2",
    ],
)
def test_cpus_that_cannot_be_bound_to_are_used_too(wide, probe, options):
    found, said = probe(wide, options.split())
    assert ROWS[f"`{options}` on nodes of eight"] == _row(found)
    assert "are not bound to CPUs: Slurm gives" in said


def test_a_job_beside_another_one_has_the_cpu_that_is_left(either, other_job, probe):
    other_job(either, "--nodelist=n1", "--ntasks=1")
    found, _ = probe(either, ["--nodelist=n1", "--ntasks=1"])
    assert found["places"] == ["n1 1"]
    assert ROWS["`--ntasks=1` beside a job of another user"] == _row(found)


@pytest.mark.parametrize("task", ["0", "1"])
def test_each_task_of_an_array_has_its_own(either, probe, task):
    found, _ = probe(either, ["--array=0-1", "--ntasks=1"], part=task)
    assert ROWS[ARRAY] == _row(found)


@pytest.mark.parametrize(
    ("before", "name"),
    [
        (["srun", "--nodes=1", "--ntasks=1"], "`srun` in `--nodes=2 --exclusive`"),
        (
            [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", "srun", "--nodes=1", "--pty"],
            "`srun --pty` in `--nodes=2 --exclusive`",
        ),
    ],
    ids=["srun", "srun --pty"],
)
def test_in_a_step_all_of_the_allocation_is_used(either, probe, before, name):
    found, _ = probe(either, ["--nodes=2", "--exclusive"], before)
    assert ROWS[name] == _row(found)
    assert sorted(found["places"]) == ["n1 0", "n1 1", "n2 0", "n2 1"]


@pytest.mark.parametrize(("component", "places"), [(0, ["n1 0"]), (1, ["n2 0", "n2 1"])])
def test_of_a_heterogeneous_job_one_component_is_used_and_that_is_said(either, probe, component, places):
    options = ["--ntasks=1 --nodelist=n1", "hetjob", "--ntasks=2 --nodelist=n2"]
    before = [] if component == 0 else ["srun", "--het-group=1", "--ntasks=1"]
    found, said = probe(either, options, before)
    assert sorted(found["places"]) == places
    assert f"using component {component} of a heterogeneous job alone: the other components, 1 of 2, are not" in said
    if component == 0:
        assert ROWS["`--ntasks=1 : --ntasks=2`, the first component"] == _row(found)


def test_a_number_of_cores_is_that_of_the_allocation(either, probe):
    found, _ = probe(either, ["--nodes=2", "--exclusive"], resources=3)
    assert sorted(found["places"]) == ["n1 0", "n1 1", "n2 0"]


def test_a_row_of_the_table_is_about_each_header():
    assert len(ROWS) == 19, sorted(ROWS)
