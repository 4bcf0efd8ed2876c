"""An allocation whose time runs out: what runs may end, and the next batch job runs the rest."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

EXAMPLE = Path(__file__).parents[2] / "examples" / "slurm"


@pytest.fixture
def chain(cluster, tmp_path):
    """Start the example in a directory of its own; returns the number of its first batch job."""
    for path in EXAMPLE.iterdir():
        shutil.copy(path, tmp_path)
    study = tmp_path / "study.py"
    # beside its result each run notes that it was there
    study.write_text(study.read_text().replace("sleep 0.5;", "echo {number} >> ran; sleep 0.2;"))

    def slurm(*command):
        environment = {**cluster.environment, "PATH": f"{Path(sys.executable).parent}:{cluster.environment['PATH']}"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    yield slurm
    cluster.cancel_jobs()


def ended(directory):
    reports = directory.glob(".qcgpjm-service-*/jobs.report")
    return [
        json.loads(line) for report in reports for line in report.read_text().splitlines(keepends=True) if "\n" in line
    ]


def warn(slurm, job):
    slurm("scancel", "--batch", "--signal=USR1", job)


def end(slurm, job):
    slurm("scancel", job)


@pytest.mark.parametrize("stop", [warn, end])
def test_a_study_goes_on_in_the_next_batch_job(chain, cluster, tmp_path, wait_until, stop):
    first = chain("sbatch", "--parsable", "study.sbatch")
    wait_until(lambda: len(ended(tmp_path)) >= 6, "a few runs", 90)
    stop(chain, first)
    wait_until(lambda: not cluster.jobs(), "the end of the chain", 90)
    log = (tmp_path / "study.log").read_text()
    assert "40 of 40 runs have ended\nthe sum of all results is 20540\n" in log, log
    (run,) = tmp_path.glob(".qcgpjm-service-*")
    states = Counter(line["state"] for line in ended(tmp_path) if "interrupted" not in line["runtime"])
    assert states == {"SUCCEED": 40}
    ran = Counter((tmp_path / "ran").read_text().split())
    assert set(ran) == {str(number) for number in range(40)}
    # what the warning stops has not begun; what the end of the job stops begins again
    assert sum(ran.values()) - 40 <= (0 if stop is warn else 4)
    assert len({(tmp_path / f"run{number}.host").read_text() for number in range(40)}) == 2
    assert not (run / "manager.json").exists()


def test_what_a_node_took_with_it_runs_again_when_the_run_is_resumed(in_allocation_of_its_own, in_allocation, tmp_path):
    completed = in_allocation_of_its_own(
        """
        import glob, json, subprocess, time
        from qcg.pilotjob.executor_api import *
        name = "$QCG_PM_EXEC_API_JOB_ID"
        script = f"touch begun.{name}; until [ -e go ]; do sleep 0.05; done; echo {name} >> ran"
        with QCGPJExecutor() as executor:
            jobs = [executor.submit(ScriptTemplate, name=f"j{n}", script=script) for n in range(4)]
            after = executor.submit(ScriptTemplate, name="after", script="echo after >> ran", after=jobs)
            wide = executor.submit(ParallelTemplate, name="wide", exec="true", nodes=2, cores=2)
            while len(glob.glob("begun.*")) < 4:
                time.sleep(0.01)
            subprocess.run(["scontrol", "update", "nodename=n2", "state=down", "reason=test"], check=True)
            wide.result(60)
            open("go", "w").close()
            print(json.dumps([wide.result(), after.result(60), *(job.result(60) for job in jobs)]))
        """,
        limit=120,
    )
    wide, after, *jobs = json.loads(completed.stdout)
    assert (wide, after) == ({"wide": "FAILED"}, {"after": "OMITTED"})
    assert sorted(state for job in jobs for state in job.values()) == ["FAILED", "FAILED", "SUCCEED", "SUCCEED"]
    completed = in_allocation(
        """
        import json
        from qcg.pilotjob.executor_api import *
        with QCGPJExecutor(resume=".") as executor:
            print(json.dumps(executor.attach(*[f"j{n}" for n in range(4)], "after", "wide").result(60)))
        """,
        limit=120,
    )
    assert set(json.loads(completed.stdout).values()) == {"SUCCEED"}
    ran = Counter((tmp_path / "ran").read_text().split())
    assert set(ran) == {"after", "j0", "j1", "j2", "j3"}
    assert all(ran[name] == 1 for job in jobs for name, state in job.items() if state == "SUCCEED")
