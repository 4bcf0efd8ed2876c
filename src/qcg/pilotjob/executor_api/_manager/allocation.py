"""The environment of a Slurm allocation, as the core and the jobs have to see it."""

from __future__ import annotations

import os

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
