"""The nodes of a Slurm allocation, and what Slurm says of the CPUs that the allocation has on each of them.

This is a bound, and what is counted before the agents run: which CPUs there are is told by the agent of a node.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
from types import MappingProxyType
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from qcg.pilotjob.config import Config
from qcg.pilotjob.resources import Node, Resources, ResourcesType

from qcg.pilotjob.executor_api._processes.cpus import parse_cpus, usable_cpus
from qcg.pilotjob.executor_api._shared.overriding import override

__all__ = [
    "AllocationResources",
    "AllocationUnreadable",
    "GrantedNode",
    "Wanted",
    "component_of",
    "granted_nodes",
    "in_allocation",
    "resources_of_allocation",
    "words_of",
]

_MOST_NAMES = 8
_SECONDS = 60.0  # Slurm's own commands wait for a controller that is busy


class AllocationUnreadable(Exception):
    """Slurm's answers about the allocation cannot be used; the message says why, and what to do."""


class GrantedNode(NamedTuple):
    """A node of the allocation.

    `cpus` is the number of CPUs that the allocation has there, `numbers` are their numbers as Slurm counts them (see
    `cpus.machine_cores`), which may be more when Slurm gives whole cores; None when Slurm does not tell. `within` are
    the CPUs that this program, which is itself a job of an executor, was given there, by the numbers of the kernel.
    `gpus` is how many GPUs the allocation has there, and `unlike` has the nodes where it has another number,
    with that.
    """

    name: str
    cpus: int
    numbers: Optional[List[int]] = None
    within: Optional[List[int]] = None
    gpus: int = 0
    unlike: Mapping[str, int] = MappingProxyType({})

    @property
    def orders(self) -> Dict[str, Any]:
        """What the agent there has to know of it."""
        return {"count": self.cpus, "numbers": self.numbers, "within": self.within}


class Wanted(NamedTuple):
    """Holds how much of the allocation jobs shall use: a number of `cores`, or all, and how many share one."""

    cores: Optional[int] = None
    threads_per_core: int = 1

    @property
    def orders(self) -> Dict[str, Any]:
        """What each agent has to know of it."""
        return {"threads_per_core": self.threads_per_core}


class AllocationResources(Resources):  # type: ignore[misc]  # the core is untyped
    """The cores of an allocation: as many as Slurm says, until the agent of a node says which.

    In place of the core's, which takes tasks for cores and their numbers from the manager's machine.
    """

    def __init__(self, granted: List[GrantedNode]) -> None:
        self.granted = {node.name: node for node in granted}
        self._keeps_core = False
        super().__init__(ResourcesType.SLURM, [Node(node.name, node.cpus) for node in granted], binding=True)

    @override
    def allocate_for_system(self) -> None:
        self._keeps_core = True  # it is not known yet what cores there are

    def keep_core(self) -> None:
        """Keep a core for the manager, if that is wanted, now that the agents have told of theirs."""
        if self._keeps_core:
            available = (node for node in self.nodes if node.available)
            self._system_allocation = next(filter(None, (node.allocate_exact(1) for node in available)), None)


def in_allocation(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process runs in an allocation of Slurm."""
    return _node_list(environment) != "" and "SLURM_JOB_CPUS_PER_NODE" in environment


def resources_of_allocation(config: Dict[Any, Any]) -> AllocationResources:
    """Return the nodes of the allocation that this process runs in, as far as the configuration does not limit them.

    Raises:
        AllocationUnreadable: they cannot be found out.
    """
    granted = granted_nodes(os.environ)
    begin = Config.SLURM_LIMIT_NODES_RANGE_BEGIN.get(config) or 0
    end = Config.SLURM_LIMIT_NODES_RANGE_END.get(config) or len(granted)
    if begin > end:
        raise AllocationUnreadable(
            f"--slurm-limit-nodes-range-begin is {begin} and --slurm-limit-nodes-range-end {end}; nodes count from 0, "
            "the end is not part of the range"
        )
    return AllocationResources(granted[begin:end])


def granted_nodes(environment: Mapping[str, str]) -> List[GrantedNode]:
    """Return the nodes of the allocation that `environment` speaks of, in Slurm's order.

    Raises:
        AllocationUnreadable: they cannot be found out.
    """
    node_list, counts = _node_list(environment), environment.get("SLURM_JOB_CPUS_PER_NODE", "")
    job = _job_of(environment)
    hostnames, records = _output_of(["scontrol", "show", "hostnames", node_list], _show_job(job))
    names = hostnames.split()
    numbers = _counts_in(counts)
    if not names or len(names) != len(numbers):
        raise AllocationUnreadable(
            f"SLURM_JOB_NODELIST is {node_list!r}, {len(names)} nodes, but SLURM_JOB_CPUS_PER_NODE {counts!r} is for "
            f"{len(numbers)}; something has changed Slurm's variables: start from a new shell"
        )
    details = _details_in(records, job)
    told = {name: parse_cpus(node["CPU_IDs"]) for name, node in details.items()}
    gpus = {name: _gpus_of(node.get("GRES", "")) for name, node in details.items()}
    of_job = _cpus_of_job(numbers, environment)
    if of_job is not None:
        told, withins = {}, of_job
    else:
        withins = [None] * len(names)
    unlike = {count: {name: other for name, other in gpus.items() if other != count} for count in {0, *gpus.values()}}
    return [
        GrantedNode(name, cpus, told.get(name), within, gpus.get(name, 0), unlike[gpus.get(name, 0)])
        for name, cpus, within in zip(names, numbers, withins)
    ]


def component_of(environment: Mapping[str, str]) -> Optional[Tuple[int, int]]:
    """Return which component of a heterogeneous job the allocation is, and how many there are; None of other jobs.

    In a step of another component than the first, Slurm gives the nodes of that one, and the job id of the first.
    """
    size = environment.get("SLURM_HET_SIZE", "")
    if not size.isdigit():
        return None
    here = _node_list(environment), environment.get("SLURM_JOB_CPUS_PER_NODE")
    for group in range(int(size)):
        nodes, cpus = (environment.get(f"SLURM_JOB_{name}_HET_GROUP_{group}") for name in ("NODELIST", "CPUS_PER_NODE"))
        if (nodes, cpus) == here:
            return group, int(size)
    return 0, int(size)


def words_of(granted: Mapping[str, GrantedNode], found: Mapping[str, Mapping[str, Any]]) -> List[str]:
    """Return what a user has to know of the nodes whose agents have `found` other cores than were `granted`."""
    words = []
    component = component_of(os.environ)
    if component is not None and component[1] > 1:
        words.append(
            f"using component {component[0]} of a heterogeneous job alone: the other components, "
            f"{component[1] - 1} of {component[1]}, are not used"
        )
    bound = {name: node for name, node in found.items() if node["binds"]}
    short = [name for name, node in bound.items() if node["cpus"] < granted[name].cpus]
    if short:
        given = sum(granted[name].cpus for name in found)
        used = sum(min(node["cpus"], granted[name].cpus) for name, node in bound.items())
        used += sum(granted[name].cpus for name in found if name not in bound)
        words.append(f"using {used} of {given} CPUs: this program may use no more on {_some(short)}")
    loose = [name for name in found if name not in bound]
    if loose:
        cpus, machine = granted[loose[0]].cpus, found[loose[0]]["machine"]
        reason = f"it has {machine}" if cpus > machine else f"which of its {machine} they are is not known"
        words.append(f"jobs on {_some(loose)} are not bound to CPUs: Slurm gives {cpus} of {loose[0]}, and {reason}")
    shared = sum(len(node.get("shared", ())) for node in found.values())
    if shared:
        cores = "1 core is" if shared == 1 else f"{shared} cores are"
        words.append(f"{cores} shared with another executor in this allocation, since no more are left")
    return words


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (
        f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    )


def _node_list(environment: Mapping[str, str]) -> str:
    return environment.get("SLURM_JOB_NODELIST") or environment.get("SLURM_NODELIST") or ""


def _job_of(environment: Mapping[str, str]) -> str:
    """Return what scontrol is asked for: the number of an array's last task is that of the array, too."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    component = component_of(environment)
    of_component = environment.get(f"SLURM_JOB_ID_HET_GROUP_{component[0]}") if component else None
    job = of_component or environment.get("SLURM_JOB_ID") or environment.get("SLURM_JOBID")
    if not job:
        raise AllocationUnreadable("SLURM_JOB_NODELIST is set, but SLURM_JOB_ID is not: start from a new shell")
    return job


def _output_of(*commands: List[str]) -> Tuple[str, ...]:
    """Return what the commands print, which run at the same time."""
    streams: Dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started: List["subprocess.Popen[str]"] = []
    try:
        started.extend(subprocess.Popen(command, text=True, **streams) for command in commands)
        return tuple(_finished(process, command) for process, command in zip(started, commands))
    except OSError as error:
        raise AllocationUnreadable(
            f"SLURM_JOB_NODELIST is set, so this is an allocation of Slurm, but {commands[0][0]!r} cannot be started: "
            f"{error.strerror}; put Slurm's commands on PATH (in a container they have to be mounted there), or unset "
            "SLURM_JOB_NODELIST and SLURM_NODELIST to use this machine alone"
        ) from error
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.communicate()


def _finished(process: "subprocess.Popen[str]", command: List[str]) -> str:
    try:
        output, said = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise AllocationUnreadable(f"'{' '.join(command)}' has not answered for {_SECONDS:g} s") from None
    if process.returncode:
        advice = ""
        if "Invalid job id" in said:
            advice = "; that allocation has ended, and this shell is left over from it: start from a new one"
        raise AllocationUnreadable(f"'{' '.join(command)}' failed: {said.strip()}{advice}")
    return output


def _counts_in(text: str) -> List[int]:
    """Return the numbers in a text like ``2(x3),1``.

    Raises:
        AllocationUnreadable: it is no such text.
    """
    numbers: List[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if not found:
            raise AllocationUnreadable(
                f"SLURM_JOB_CPUS_PER_NODE is {text!r}, which is no list like '4(x2),2': start from a new shell"
            )
        numbers += [int(found[1])] * int(found[2] or 1)
    return numbers


def _show_job(job: str) -> List[str]:
    return ["scontrol", "show", "--oneliner", "--detail", "job", job]


def _details_in(records: str, job: str) -> Dict[str, Dict[str, str]]:
    """Return the details of each node in what `_show_job` prints, where `job` may be a component of several."""
    found: Dict[str, Dict[str, str]] = {}
    for record in records.splitlines():
        fields = [field.partition("=") for field in record.split()]
        if any(name == "HetJobId" for name, _, _ in fields) and ("JobId", "=", job) not in fields:
            continue
        details: Dict[str, str] = {}
        for number, (name, _, value) in enumerate(fields):
            if name == "Nodes" and fields[number + 1 : number + 2] and fields[number + 1][0] == "CPU_IDs":
                details = {}
                found.update((node, details) for node in _expanded(value))
            details[name] = value
    return found


def _gpus_of(gres: str) -> int:
    """Return the number of GPUs in a text like ``gpu:a100:2(IDX:0-1),gpu:1(IDX:2),shard:8(4/4)``."""
    return sum(map(int, re.findall(r"(?:^|,)gpu(?::[^:,(]+)??:(\d+)(?=\(|,|$)", gres)))


def _cpus_of_job(counts: List[int], environment: Mapping[str, str]) -> Optional[List[Optional[List[int]]]]:
    """Return the CPUs on each node of the job of another executor that this program is; None when it is no such job.

    For a node where they are not known there is None among them.
    """
    from qcg.pilotjob.executor_api._shared.rules import JOB_ID_VARIABLE

    if JOB_ID_VARIABLE not in environment:
        return None
    if len(counts) == 1:
        return [usable_cpus()]
    masks = re.findall(r"0x[0-9a-fA-F]+", environment.get("SLURM_CPU_BIND", ""))
    if len(masks) != sum(counts):
        return [None] * len(counts)
    left = iter(masks)
    return [sorted({cpu for mask in itertools.islice(left, count) for cpu in _cpus_in(mask)}) for count in counts]


def _cpus_in(mask: str) -> Iterator[int]:
    bits = int(mask, 16)
    return (cpu for cpu in range(bits.bit_length()) if bits >> cpu & 1)


def _expanded(text: str) -> Iterator[str]:
    """Yield the names in a list of nodes like ``a,n[1-2,08-10]``."""
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        pieces = [_alternatives(piece) for piece in re.split(r"(\[[^\]]*\])", part)]
        yield from map("".join, itertools.product(*pieces))


def _alternatives(piece: str) -> List[str]:
    if not piece.startswith("["):
        return [piece]
    names: List[str] = []
    for part in piece[1:-1].split(","):
        first, _, last = part.partition("-")
        names += [str(number).zfill(len(first)) for number in range(int(first), int(last or first) + 1)]
    return names


_CONTROL_SECONDS = 10.0  # for Slurm's controller to answer
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
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_CONTROL_SECONDS, check=False
        )
        states = asked.stdout.split()  # not the exit code: the loop's thread may collect the process
        return bool(states) and "RUNNING" not in states
    return False
