"""The GPUs of an allocation's nodes: what an agent finds on its node, and what the processes of a job find.

::

    agent                        manager
    -----                        -------
    gpus_here.gpus_here() ------> AllocationGpus.found() -> Gpus, among the node's consumables
      {"ready": {"gpus": {}}}                               | a job's part of them
    first process of the job <-- AllocationGpus.job_environment()
    what srun starts on a node <-- task_prolog()
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from qcg.pilotjob.allocation import CRBindAllocation
from qcg.pilotjob.resources import CRBind, CRType

from qcg.pilotjob.executor_api._execution.slurm import GrantedNode
from qcg.pilotjob.executor_api._processes.resources import HIDES_ALL, PLACE, VARIABLES, Gpu, gpus_in
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.rules import JOB_ID_VARIABLE

__all__ = ["AllocationGpus", "Gpus", "agent_environment", "described", "task_prolog"]

_REQUESTS = (
    "SLURM_GPUS", "SLURM_GPUS_PER_NODE", "SLURM_GPUS_PER_SOCKET", "SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK",
    "SLURM_NTASKS_PER_GPU", "SLURM_CPUS_PER_GPU", "SLURM_MEM_PER_GPU", "SLURM_GPU_BIND", "SLURM_TRES_BIND",
    "SLURM_GRES", "SLURM_STEP_GRES",
)  # fmt: skip
"""What the user has asked for the allocation, which ``srun`` would ask for each of its steps."""
_NOT_PER_NODE = ("SLURM_GPUS", "SLURM_GPUS_PER_SOCKET", "SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK")
"""Requests of which a step on one node gets too few GPUs, or none at all, unless it asks for their number."""
_BINDS_ONE = "gres/gpu:per_task"
"""How SLURM_TRES_BIND begins when Slurm of today was asked for GPUs by task: a task of any step sees no others."""
_FROM_SLURM = ("SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE", "SLURM_STEP_GPUS")


def agent_environment(environment: Mapping[str, str]) -> Dict[str, str]:
    """Return the environment in which ``srun`` starts an agent, so that all that tells of GPUs there is of its node."""
    return {name: value for name, value in environment.items() if name not in VARIABLES and name not in _REQUESTS}


class Gpus(CRBind):  # type: ignore[misc]  # the core is untyped
    """The GPUs of one node, as the core's scheduler counts them.

    Mends that the core gives all nodes one and the same list, and sorts it as text when a job ends. Can go when each
    node has its own.
    """

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._gpus = {_name_of(gpu): gpu for gpu in gpus}
        super().__init__(CRType.GPU, [_name_of(gpu) for gpu in gpus])

    @override
    def release(self, allocation: CRBindAllocation) -> None:
        super().release(allocation)
        self._free.sort(key=self.ids.index)

    def variables(self, names: Iterable[str]) -> Dict[str, str]:
        """Return the variables with which a process sees the GPUs of these names."""
        gpus = [self._gpus[name] for name in names]
        variables: Dict[str, str] = {}
        for variable in gpus[0] if gpus else ():
            values = (str(place) if gpu[variable] == PLACE else gpu[variable] for place, gpu in enumerate(gpus))
            variables[variable] = ",".join(values)
        return variables


def _name_of(gpu: Gpu) -> str:
    return next(value for value in gpu.values() if value != PLACE)


def _part_of(part: Any) -> List[str]:
    """Return the names of the GPUs that a job has on one of its nodes."""
    return list(part.crs[CRType.GPU].instances) if part.crs and CRType.GPU in part.crs else []


def described(allocation: Any) -> Dict[str, str]:
    """Return what is told of the GPUs in an allocation: like its cores, nothing when there are none."""
    parts = {part.node.name: _part_of(part) for part in allocation.nodes}
    text = ",".join(f"{node}[{':'.join(names)}]" for node, names in parts.items() if names)
    return {"gpus": text} if text else {}


class AllocationGpus:
    """Holds what is known of the GPUs of all nodes, and tells what jobs see of them."""

    def __init__(
        self, environment: Mapping[str, str], directory: str, granted: Optional[Mapping[str, GrantedNode]]
    ) -> None:
        """`environment` is that of the user's program.

        `granted` is what Slurm says of the nodes; None when Slurm does not start the agents, which then cannot tell of
        GPUs.
        """
        tells_itself = granted is not None and any(environment.get(name) for name in _FROM_SLURM)
        self._declared = [] if tells_itself else gpus_in(environment)
        # of what was asked for, a job of another executor, in which the program may run, has no variables
        asks_by_number = JOB_ID_VARIABLE in environment or any(environment.get(name) for name in _NOT_PER_NODE)
        self._granted: Mapping[str, GrantedNode] = (granted or {}) if asks_by_number else {}
        self._directory = Path(directory)
        self._variables: Dict[str, str] = {}  # with what no GPU is seen
        self._own_prolog = environment.get("SLURM_TASK_PROLOG", "")
        self._unset = [name for name in _NOT_PER_NODE if environment.get(name)]
        if environment.get("SLURM_TRES_BIND", "").startswith(_BINDS_ONE):
            self._unset.append("SLURM_TRES_BIND")

    def found(self, reported: Mapping[str, Any]) -> Gpus:
        """Return the GPUs of a node whose agent has reported these.

        Where Slurm tells of none in all the allocation, those hold that the user's program has named in its own
        environment, for all nodes.
        """
        usable = reported["usable"] if reported["variables"] else self._declared
        names = reported["variables"] or [name for gpu in self._declared for name in gpu]
        self._variables.update({name: HIDES_ALL.get(name, "") for name in names})
        return Gpus(usable)

    def step_options(self, node: str) -> List[str]:
        """Return the options with which a step of ``srun`` on `node` alone has all the GPUs of the node."""
        granted = self._granted.get(node)
        if granted is None:
            return []
        # Slurm compares what a step asks for with what the first node has that is not excluded
        excluded = [f"--exclude={','.join(granted.unlike)}"] if granted.unlike else []
        return [f"--gres=gpu:{granted.gpus}" if granted.gpus else "--gres=none", *excluded]

    def job_environment(
        self, parts: Sequence[Any], given: Optional[Mapping[str, str]], job: str
    ) -> Tuple[Dict[str, Optional[str]], List[str]]:
        """Return how the environment of a job on the nodes of `parts` differs, and the files that were made for it.

        What the user has `given` for the job is kept.
        """
        given = given or {}
        own = {name: value for name, value in given.items() if name in VARIABLES}
        changes: Dict[str, Optional[str]] = {**dict.fromkeys(self._unset), **self._for_steps(), **own}
        if not self._variables:
            return changes, []
        nodes = {part.node.name: {**self._on_node(part), **own} for part in parts}
        prolog = self._directory / f"{job}.prolog"
        prolog.write_text(task_prolog(nodes, given.get("SLURM_TASK_PROLOG", self._own_prolog)), encoding="utf-8")
        prolog.chmod(0o700)
        return {**changes, **nodes[parts[0].node.name], "SLURM_TASK_PROLOG": str(prolog)}, [str(prolog)]

    def _on_node(self, part: Any) -> Dict[str, str]:
        names = _part_of(part)
        return {**self._variables, **(part.node.crs[CRType.GPU].variables(names) if names else {})}

    def _for_steps(self) -> Dict[str, str]:
        """Return what lets ``srun`` in a job have GPUs: the number that each node of the allocation has at least."""
        if not self._granted:
            return {}
        least = min(count for node in self._granted.values() for count in (node.gpus, *node.unlike.values()))
        return {"SLURM_GPUS_PER_NODE": str(least)} if least else {"SLURM_STEP_GRES": "none"}

    def for_hydra(
        self, arguments: Sequence[str], parts: Sequence[Any], given: Optional[Mapping[str, str]]
    ) -> List[str]:
        """Return the `arguments` of Intel MPI's mpirun, which name each node, with each node's variables.

        Its daemons hand the variables of mpirun itself on to all ranks, and with them the GPUs of the first node.
        """
        left = [part for part in parts if self._variables]
        completed: List[str] = []
        for argument in arguments:
            is_node = bool(left and completed and completed[-1] == "-host" and argument == left[0].node.name)
            completed.append(argument)
            if is_node:
                own = given or {}
                for name, value in self._on_node(left.pop(0)).items():
                    completed += ["-env", name, own.get(name, value)]
        return completed


def task_prolog(nodes: Mapping[str, Mapping[str, str]], own_prolog: str) -> str:
    """Return a program for ``srun --task-prolog``: it gives each process that srun starts its node's variables.

    Slurm itself gives to each step all GPUs that the allocation has on the node. Steps that a job starts run in its
    environment, and so do those with which ``mpirun`` starts its daemons on other nodes. Of what this program writes
    to its standard output, Slurm takes the lines that begin with ``export``. The user's `own_prolog`, which may be that
    of a job in which the user's program runs, comes before it: of two lines for a variable the last one counts.
    """
    same: Dict[str, List[str]] = {}
    for node, variables in nodes.items():
        exports = "\n".join(f"export {name}={value}" for name, value in variables.items())
        same.setdefault(exports, []).append(node)
    lines = ["#!/bin/sh", *([shlex.quote(own_prolog)] if own_prolog else []), 'case "$SLURMD_NODENAME" in']
    for exports, names in same.items():
        lines += [f"{'|'.join(names)})", f"printf '%s\\n' {shlex.quote(exports)}", ";;"]
    return "\n".join([*lines, "esac", ""])
