"""Whether jobs use every CPU of an allocation, and no other, with what users ask for in their batch scripts.

It is run where Slurm's commands are, beside a cluster with nodes of four cores with two threads each; see slurm_vm.sh.
It prints a line for each of HEADERS, or of those given as arguments, and returns 1 when one is not as it should be.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEADERS = (
    "--ntasks=1 --cpus-per-task=4",
    "--ntasks=2 --cpus-per-task=2",
    "--ntasks=3",
    "--ntasks=5",
    "--ntasks=4 --hint=nomultithread",
    "--exclusive",
)
START_SECONDS = 300.0  # in a virtual machine without KVM
WALLTIME = "5m"

# Jobs wait until all of them run, so each needs a core of its own.
_MEET = """
touch here.$N
until [ $(ls here.* | wc -l) = $ALL ]; do sleep 0.2; done
taskset -cp $$ | sed 's/.*: //'
"""


def cpus_of(text: str) -> set[int]:
    """Read the CPUs in a list as ``0-2,5``."""
    ranges = (part.partition("-") for part in text.strip().split(","))
    return {cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1)}


def in_allocation() -> None:
    """Run as many jobs as there are cores; print what they were given as JSON."""
    from qcg.pilotjob.executor_api import QCGPJExecutor, ScriptTemplate

    shown = subprocess.run(
        ["scontrol", "show", "-d", "job", os.environ["SLURM_JOB_ID"]], capture_output=True, text=True, check=True
    )
    given = next(word for word in shown.stdout.split() if word.startswith("CPU_IDs="))
    directory = Path(tempfile.mkdtemp())
    begun = time.monotonic()
    with QCGPJExecutor(wd=directory, start_timeout=START_SECONDS) as executor:
        started = time.monotonic() - begun
        cores = executor.qcgpj_manager.resources()["total_cores"]
        env = {"ALL": str(cores)}
        jobs = [
            executor.submit(ScriptTemplate, name=f"j{n}", script=_MEET, env={**env, "N": str(n)}, walltime=WALLTIME)
            for n in range(cores)
        ]
        states = [next(iter(job.result().values())) for job in jobs]
    outputs = [path.read_text().strip() for path in sorted(directory.glob("j*.out"))]
    failed = len(states) - states.count("SUCCEED")
    found = {"given": given[len("CPU_IDs=") :], "cores": cores, "failed": failed, "jobs": outputs, "start": started}
    print(json.dumps(found), flush=True)


def told(header: str) -> bool:
    """Try one header, and print a line; return whether all is as it should be."""
    command = ["salloc", "-Q", *header.split(), sys.executable, __file__, "--in-allocation"]
    completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if completed.returncode:
        print(f"{header}: does not run, exit code {completed.returncode}", flush=True)
        return False
    found = json.loads(completed.stdout.splitlines()[-1])
    used = [cpus_of(line) for line in found["jobs"] if line]
    union = set().union(*used)
    # hint=nomultithread gives whole cores too: a job may have both threads of its own, or one of them
    good = not found["failed"] and len(used) == found["cores"] and sum(map(len, used)) == len(union)
    good = good and union <= cpus_of(found["given"]) and ("nomultithread" in header or union == cpus_of(found["given"]))
    print(
        f"{header}: {'as it should be' if good else 'WRONG'}; Slurm gives CPUs {found['given']}; {found['cores']} jobs "
        f"at a time on {' | '.join(found['jobs'])}; {found['failed']} failed; started in {found['start']:.0f} s",
        flush=True,
    )
    return good


def main() -> None:
    """Try all headers."""
    if sys.argv[1:] == ["--in-allocation"]:
        in_allocation()
    else:
        results = [told(header) for header in sys.argv[1:] or HEADERS]  # each, also after one that is wrong
        sys.exit(not all(results))


if __name__ == "__main__":
    main()
