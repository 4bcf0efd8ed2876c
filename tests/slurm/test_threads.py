"""Nodes whose CPUs are the two hardware threads of one core, as far as the kernel tells there."""

import json
import re

import pytest

pytestmark = pytest.mark.slurm

SOURCE = """
    import json, os, subprocess, sys
    from pathlib import Path
    from qcg.pilotjob.executor_api import *

    Path("siblings").write_text("0-1\\n")
    for node in ("n1", "n2"):
        slurmd = Path(os.environ["SLURM_CONF"]).with_name(f"slurmd.{node}.pid").read_text().strip()
        for cpu in (0, 1):
            file = f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
            mount = ["mount", "--bind", os.path.abspath("siblings"), file]
            subprocess.run(["nsenter", "-t", slurmd, "-m", "-r", *mount], check=True)
    bound = "echo $(hostname) $(taskset -cp $$ | cut -d: -f2); sleep 0.3"
    with QCGPJExecutor(**json.loads(sys.argv[1])) as executor:
        total = executor.qcgpj_manager.resources()["total_cores"]
        jobs = [executor.submit(ScriptTemplate, name=f"j{n}", script=bound) for n in range(2 * total)]
        for job in jobs:
            job.raise_for_status(30)
        wide = executor.submit(ParallelTemplate, name="wide", exec="sh", args=["-c", bound], cores=(total + 1) // 2)
        wide.raise_for_status(30)
    print(json.dumps([total, sorted({Path(f"{job.ids[0]}.out").read_text().strip() for job in [*jobs, wide]})]))
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2, ["n1 0,1", "n2 0,1"]]),
        ({"threads_per_core": 2}, [4, ["n1 0", "n1 0,1", "n1 1", "n2 0", "n2 1"]]),
        ({"threads_per_core": 2, "resources": 3}, [3, ["n1 0", "n1 0,1", "n1 1", "n2 0"]]),
        ({"resources": 2}, [2, ["n1 0,1", "n2 0,1"]]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_core_is_a_core_unless_its_threads_are_to_count(in_allocation_of_its_own, options, expected):
    completed = in_allocation_of_its_own(SOURCE, json.dumps(options))
    assert json.loads(completed.stdout.splitlines()[-1]) == expected
    assert not re.search("^qcgpj: (?!waiting)", completed.stderr, re.MULTILINE)
