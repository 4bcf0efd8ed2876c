"""What ``srun`` finds in a job: the job's nodes and cores, so that it may lay out tasks there as in an allocation.

Slurm itself knows of the allocation alone, so ``srun`` has to be told by variables. All that it takes from them gives
way to its own options, with one exception: it can be kept to some nodes of the allocation only by a file with a line
for each task, and then that file is the layout. So a job on all nodes has no such file. For others a program named
``srun``, first in PATH, names the nodes by ``--nodelist`` in place of the file, which is for those who call Slurm's own
by its path.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

__all__ = ["make_srun", "nodes_of_allocation", "path_with", "step_files", "step_variables", "task_prolog"]


def nodes_of_allocation(environment: Mapping[str, str]) -> int:
    """Return how many nodes the allocation has, 0 when that is not told.

    A program in a job of another executor is told of the nodes of that job, and ``srun`` knows of more.
    """
    if "QCG_PM_HOSTFILE" in environment:
        return 0
    number = environment.get("SLURM_JOB_NUM_NODES") or environment.get("SLURM_NNODES") or ""
    return int(number) if number.isdigit() else 0


def make_srun(directory: Path) -> Optional[Path]:
    """Write a program that runs Slurm's ``srun`` on the nodes of the job that calls it; return where it is.

    Returns None where there is no ``srun``.
    """
    real = shutil.which("srun")
    if real is None:
        return None
    directory.mkdir(mode=0o700, exist_ok=True)
    program = directory / "srun"
    program.write_text(
        "#!/bin/sh\n"
        "# Run srun on the nodes of this job of QCG-PilotJob, where it has some of the allocation's.\n"
        '[ "$SLURM_HOSTFILE" = "$QCG_PM_HOSTFILE" ] && unset SLURM_HOSTFILE\n'
        '[ "$SLURM_NTASKS" = "$QCG_PM_NTASKS" ] && [ -n "$SLURM_NTASKS_PER_NODE" ] && unset SLURM_NTASKS SLURM_NPROCS\n'
        f'exec {shlex.quote(real)} --nodelist="$QCG_PM_NODELIST" "$@"\n'
    )
    program.chmod(0o700)
    return program


def step_files(parts: Sequence[Any], directory: Path, name: str) -> Dict[Path, str]:
    """Return the file with a line for each core of a job, the nodes in turn: a layout for any number of tasks."""
    turns = itertools.zip_longest(*([part.node.name] * part.ncores for part in parts))
    return {directory / f"{name}.hostfile": "".join(f"{node}\n" for turn in turns for node in turn if node)}


def step_variables(parts: Sequence[Any], *, is_all: bool, hostfile: Path) -> Dict[str, Optional[str]]:
    """Return the variables for ``srun`` that differ from those of the core, None for those that must not be there.

    `is_all` says whether the job has every node of the allocation.
    """
    counts = {part.ncores for part in parts}
    variables: Dict[str, Optional[str]] = {"SLURM_CPU_BIND": "none", "QCG_PM_HOSTFILE": str(hostfile)}
    if os.environ.get("SLURM_DISTRIBUTION", "").startswith("arbitrary"):
        variables["SLURM_DISTRIBUTION"] = None
    if len(counts) > 1:
        variables["SLURM_NTASKS_PER_NODE"] = None
    elif is_all:
        # with the number of tasks set, --ntasks-per-node and --cpus-per-task could not change it
        variables.update(SLURM_NTASKS=None, SLURM_NPROCS=None)
    if is_all:
        variables["SLURM_HOSTFILE"] = None
    else:
        variables["SLURM_HOSTFILE"] = str(hostfile)
    return variables


def path_with(srun: Path, path: str) -> str:
    """Return PATH with the directory of our ``srun`` first."""
    return os.pathsep.join([str(srun.parent), path or os.defpath])


def task_prolog(parts: Sequence[Any], own_prolog: str) -> str:
    """Return a program for ``srun --task-prolog`` that binds each task to the cores that the job has on its node.

    By srun's own options all nodes would have the same numbers. Where Slurm has chosen other CPUs for the step, and
    confines it to them, the task keeps those. The user's `own_prolog` comes after it.
    """
    # a binding that srun was told to make is kept, as that of ranks
    lines = ["#!/bin/sh", "node= cpus=", 'case "${SLURM_CPU_BIND_TYPE:-none}" in none*) node=$SLURMD_NODENAME ;; esac']
    lines.append('case "$node" in')
    lines += [f"{part.node.name}) cpus={','.join(map(str, part.cores))} ;;" for part in parts]
    lines += ["esac", '[ -n "$cpus" ] && taskset -cp "$cpus" "$SLURM_TASK_PID" > /dev/null 2>&1']
    lines.append(f"exec {shlex.quote(own_prolog)}" if own_prolog else "exit 0")
    return "\n".join(lines) + "\n"
