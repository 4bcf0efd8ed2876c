"""A Slurm allocation: its environment, as the core and the jobs have to see it, and its end."""

from __future__ import annotations

import contextlib
import os
import subprocess

_SECONDS = 10.0  # for Slurm's controller to answer
_OF_A_STEP = (
    "SLURM_STEP", "SLURM_SRUN_", "SLURM_CPU_BIND", "SLURM_MEM_BIND", "SLURM_DISTRIBUTION", "SLURM_LAUNCH_NODE_IPADDR",
    "SLURM_UMASK", "PMI_", "PMIX_",
)  # fmt: skip


def leave_step() -> None:
    """Forget the step of ``srun`` that this program was started in: what it has to see is the allocation.

    A step's tasks per node are not those of the allocation, and an MPI program that finds a step's variables takes
    itself for a task of that step.
    """
    if "SLURM_STEP_ID" not in os.environ:
        return
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE")
    # Slurm's interactive step keeps the allocation's number; elsewhere only the one of the CPUs is left
    if tasks == os.environ.get("SLURM_TASKS_PER_NODE") and "SLURM_JOB_CPUS_PER_NODE" in os.environ:
        os.environ["SLURM_TASKS_PER_NODE"] = os.environ["SLURM_JOB_CPUS_PER_NODE"]
    for name in [name for name in os.environ if name.startswith(_OF_A_STEP)]:
        del os.environ[name]


def is_ending() -> bool:
    """Return whether Slurm says that the allocation no longer runs; not when it says nothing.

    After ``scancel`` Slurm ends the steps at once, and the batch script, with what that has started, by SIGKILL some
    time later: nothing else tells those that the allocation is over.
    """
    command = ["squeue", "--noheader", "--format=%T", "--jobs", os.environ.get("SLURM_JOB_ID", "")]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        asked = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        states = asked.stdout.split()  # not the exit code: the loop's thread may collect the process
        return bool(states) and "RUNNING" not in states
    return False
