"""Start the processes of a job on several cores, by the job's model.

What starts the ranks is a command in front of the program, with files and variables that it needs. It takes the place
of the core's SlurmExecution, which knows of one rank a core alone, binds ranks on all nodes to the numbers that the
cores have on the first ones, names the program only for the last node of Intel MPI, and starts by ``srun`` what is one
process.

``srun`` in a job finds the nodes and cores of that job. Slurm itself knows of the allocation alone, so ``srun`` has to
be told by variables. All that it takes from them gives
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
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from qcg.pilotjob.executor_api._processes.spawning import CannotStart

__all__ = [
    "Rank",
    "Start",
    "lays_out_ranks",
    "make_srun",
    "nodes_of_allocation",
    "path_with",
    "ranks_in",
    "start_with_intelmpi",
    "start_with_openmpi",
    "start_with_srun",
    "step_files",
    "step_variables",
    "task_prolog",
]

_LAYS_OUT = (
    # of Open MPI and Intel MPI
    "-n", "-np", "--n", "--np", "-c", "--map-by", "-map-by", "--rank-by", "--rankfile", "-rf", "-H", "-host",
     "--host", "-hosts", "-f", "-hostfile", "--hostfile", "-machinefile", "--machinefile", "-ppn", "-perhost",
    "-npernode", "--npernode", "-N", "-pernode", "--pernode", "-rr", "-grr", "-configfile", "--app", "-app",
    # of srun
    "--ntasks", "--nodes", "--cpus-per-task", "--ntasks-per-node", "--distribution", "-m", "--nodelist", "-w",
    "--tasks-per-node", "--multi-prog",
)  # fmt: skip
_BINDS = ("--bind-to", "-bind-to", "--cpu-bind", "--cpu_bind")
_SHORT_OF_SRUN = ("-n", "-N", "-c", "-m", "-w")


class Rank(NamedTuple):
    """One process of an MPI job: its node, and its cores there, each of them CPUs like ``0`` or ``0,4``."""

    node: str
    cores: Tuple[str, ...]

    @property
    def cpus(self) -> str:
        """Return the CPUs, as ``taskset -c`` takes them."""
        return ",".join(self.cores)

    @property
    def mask(self) -> str:
        """Return the CPUs as a hexadecimal number."""
        return hex(sum(1 << int(cpu) for core in self.cores for cpu in core.split(",")))


class Start(NamedTuple):
    """Holds what starts the program: the words in front of it, variables, and files with their text."""

    command: List[str]
    env: Dict[str, str]
    files: Dict[Path, str]


def ranks_in(parts: Iterable[Any], count: int, *, on_each_node: bool) -> List[Rank]:
    """Return the ranks of a job on the nodes of `parts`: `count` of them, in all or on each node, 0 for one a core.

    Raises:
        CannotStart: the cores of a node cannot be shared equally.
    """
    parts = list(parts)
    total = sum(part.ncores for part in parts)
    ranks: List[Rank] = []
    for part in parts:
        cores = [str(core) for core in part.cores]
        width = 1 if not count else (len(cores) if on_each_node else total) // count
        if count and (not width or len(cores) % width or (on_each_node and len(cores) % count)):
            raise CannotStart(f"{count} ranks cannot share the {len(cores)} cores of node {part.node.name} equally")
        ranks += [Rank(part.node.name, tuple(cores[i : i + width])) for i in range(0, len(cores), width)]
    return ranks


def lays_out_ranks(options: Sequence[str]) -> bool:
    """Return whether the user's own options of mpirun or srun say how many ranks there are, or where."""
    return any(
        option.partition("=")[0] in _LAYS_OUT or (option[:2] in _SHORT_OF_SRUN and option[2:].isdigit())
        for option in options
    )


def binds_ranks(options: Sequence[str]) -> bool:
    """Return whether the user's own options say what ranks are bound to."""
    return any(option.partition("=")[0] in _BINDS for option in options)


def start_with_openmpi(ranks: Sequence[Rank], options: Dict[str, Any], rankfile: Path, *, binds: bool) -> Start:
    """Return what starts `ranks` by Open MPI's mpirun; each is bound to its cores, if jobs are."""
    mpirun, own = _mpirun_in(options)
    if lays_out_ranks(own):
        return Start([mpirun, *own], {}, {})
    if not binds or binds_ranks(own):
        hosts = ",".join(f"{node}:{len(there)}" for node, there in _by_node(ranks).items())
        layout = ["-n", str(len(ranks)), "--host", hosts, "--map-by", "slot"]
        layout += [] if binds_ranks(own) else ["--bind-to", "none"]
        return Start([mpirun, *layout, *own], {}, {})
    lines = [f"rank {number}={rank.node} slot={rank.cpus}\n" for number, rank in enumerate(ranks)]
    # the numbers are the kernel's, not a count of the cores that mpirun may use
    layout = ["--mca", "rmaps_rank_file_physical", "1", "--rankfile", str(rankfile)]
    return Start([mpirun, *layout, *own], {}, {rankfile: "".join(lines)})


def start_with_intelmpi(
    ranks: Sequence[Rank], options: Dict[str, Any], program: Sequence[str], *, binds: bool, debug: bool
) -> Start:
    """Return what starts `ranks` by Intel MPI's mpirun, to the end of the command: it wants `program` for each node."""
    mpirun, own = _mpirun_in(options)
    extra = f"{'-vvvvvv' if debug else '-v'} --overcommit --oversubscribe --cpu-bind=none --mem-per-cpu=0"
    env = {"I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS": extra}
    if debug:
        env.update(I_MPI_HYDRA_DEBUG="1", I_MPI_DEBUG="5")
    if lays_out_ranks(own):
        return Start([mpirun, *own, *program], env, {})
    if binds:
        env["I_MPI_PIN"] = "1"
    command = [mpirun, *own]
    for node, there in _by_node(ranks).items():
        command += [":"] if len(command) > 1 + len(own) else []
        command += ["-host", node, "-n", str(len(there)), *(_pinned(there) if binds else ()), *program]
    return Start(command, env, {})


def _pinned(ranks: Sequence[Rank]) -> List[str]:
    if all(rank.cpus.isdigit() for rank in ranks):
        return ["-env", "I_MPI_PIN_PROCESSOR_LIST", ",".join(rank.cpus for rank in ranks)]
    return ["-env", "I_MPI_PIN_DOMAIN", f"[{','.join(rank.mask[2:] for rank in ranks)}]"]


def start_with_srun(
    ranks: Sequence[Rank], options: Dict[str, Any], streams: Sequence[str], directory: Path, name: str, *, binds: bool
) -> Start:
    """Return what starts `ranks` by srun, each on its node and bound to its cores, if jobs are.

    `streams` are the options for the files of the job; files for srun are put into `directory`, under names that begin
    with `name`.
    """
    own = [str(option) for option in options.get("srun_args") or ()]
    command = ["srun", "--overcommit", "--mem-per-cpu=0", "--kill-on-bad-exit=1", *streams]
    if lays_out_ranks(own):
        return Start([*command, *own], {}, {})
    hostfile = directory / f"{name}.hostfile"
    files = {hostfile: "".join(f"{rank.node}\n" for rank in ranks)}
    command += ["-n", str(len(ranks)), "-m", "arbitrary"]
    binds = binds and not binds_ranks(own)
    masks = {tuple(rank.mask for rank in there) for there in _by_node(ranks).values()} if binds else set()
    binder: List[str] = []
    if not binds:
        command.append("--cpu-bind=none")
    elif len(masks) == 1:  # srun takes the masks for each node anew
        command.append(f"--cpu-bind=verbose,mask_cpu:{','.join(masks.pop())}")
    else:
        script = directory / f"{name}.bind"
        cases = "".join(f"{number}) cpus={rank.cpus} ;;\n" for number, rank in enumerate(ranks))
        files[script] = f'case "$SLURM_PROCID" in\n{cases}esac\nexec taskset -c "$cpus" "$@"\n'
        command.append("--cpu-bind=none")
        binder = ["sh", str(script)]
    return Start([*command, *own, *binder], {"SLURM_HOSTFILE": str(hostfile)}, files)


def _mpirun_in(options: Dict[str, Any]) -> Tuple[str, List[str]]:
    return str(options.get("mpirun") or "mpirun"), [str(option) for option in options.get("mpirun_args") or ()]


def _by_node(ranks: Iterable[Rank]) -> Dict[str, List[Rank]]:
    nodes: Dict[str, List[Rank]] = {}
    for rank in ranks:
        nodes.setdefault(rank.node, []).append(rank)
    return nodes


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
