"""The job description, as the manager takes it, in types.

Templates render to these dictionaries; validation.py turns what a user wrote into what can be sent, or says what is
wrong with it. The keys and their meaning are the manager's own ("standard" format); what this package adds is in
`Execution`.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Dict, List, Literal, Mapping, NamedTuple, Optional, Tuple, TypedDict, Union

if sys.version_info >= (3, 11):
    from typing import Required
else:
    from typing_extensions import Required

__all__ = [
    "FINAL_STATES",
    "Capacity",
    "Dependencies",
    "Execution",
    "HasJobNames",
    "Iteration",
    "IterationInfo",
    "Job",
    "JobInfo",
    "Resources",
    "Size",
    "State",
]

State = Literal["QUEUED", "SCHEDULED", "EXECUTING", "SUCCEED", "FAILED", "CANCELED", "OMITTED"]

FINAL_STATES = frozenset({"SUCCEED", "FAILED", "CANCELED", "OMITTED"})


class HasJobNames:
    """Stands for jobs in the parameters of another one: ``after=future`` means the names of its jobs."""

    __slots__ = ()

    ids: List[str]


class Execution(TypedDict, total=False):
    """Describes what runs: `exec` (with `args`) or `script`.

    Relative paths are below `wd`, and `wd` is below the executor's.

    `env` may stand beside `script` too: it is exported at the head of the script.
    """

    exec: str
    """The program: a path, or a name that is looked for in PATH."""
    args: List[str]
    """The program's arguments, one item each; no shell reads them."""
    script: str
    """Lines of shell, run by bash, in the place of `exec` and `args`."""
    login: bool
    """Whether a login shell, which reads the user's profile, runs it; by default where `modules` are asked for."""
    env: Dict[str, str]
    """Variables of the environment."""
    stdin: str
    """A file to read standard input from."""
    stdout: str
    """The file for standard output; without it the output is not kept."""
    stderr: str
    """The file for standard error; without it the output is not kept."""
    modules: List[str]
    """Environment modules, loaded before the program starts."""
    venv: str
    """A Python virtual environment, activated before the program starts."""
    wd: str
    """The working directory, made when it is missing."""
    model: str
    """How the program is started: `default` once, `threads` once with all cores of one node, the others with MPI."""
    model_opts: Dict[str, Any]
    """Options of the model: `mpirun` and `mpirun_args` of `openmpi` and `intelmpi`, `srun_args` of `srunmpi`."""


class Size(TypedDict, total=False):
    """A number of cores or nodes: `exact`, or a range that the manager may choose from."""

    exact: int
    """This many, in the place of `min` and `max`."""
    min: int
    """At least so many; 1 when only `max` is given. Beside it stands `max`, or `scheduler` in an array."""
    max: int
    """At most so many."""
    scheduler: Dict[str, Any]
    """What chooses the size in the place of `max`: `{"name": "split-into", "params": {"parts": 2}}`."""


class Resources(TypedDict, total=False):
    """`numCores` counts cores on each node when `numNodes` is given, else in all; `wt` is a walltime like ``1h30m``."""

    numCores: Union[int, Size]
    """Cores: on each node when `numNodes` is given, else in all; on one node, unless the model is one of MPI's."""
    numNodes: Union[int, Size]
    """Nodes: whole ones when `numCores` is not given."""
    ranks: int
    """Ranks of MPI, which share the cores equally: on each node when `numNodes` is given, else in all; one a core."""
    wt: Union[str, float]
    """How long the job may run: `1h30m`, `01:30:00`, `1-12:00:00` with days, or a number of seconds."""
    gpus: int
    """GPUs: on each node when `numNodes` is given; otherwise the job is on one node."""
    nodeCrs: Dict[str, int]
    """`{"gpu": 1}`, in the manager's own words what `gpus` stands for too: GPUs on each node."""


class Iteration(TypedDict, total=False):
    """The range ``start <= ${it} < stop``, or `values`, which `${itval}` runs through."""

    start: int
    """The first number, 0 by default."""
    stop: int
    """The number behind the last one."""
    values: List[str]
    """Texts, one for each iteration, in the place of `start` and `stop`."""


class Dependencies(TypedDict, total=False):
    """`after` names jobs (or ``name:iteration``) that must succeed first."""

    after: List[str]
    """Names of jobs, or ``name:iteration``, that must succeed first."""


class Job(TypedDict, total=False):
    """One job. A name is given to it when it has none."""

    name: str
    """The job's name, unique for the life of the manager: letters, digits and `- _ . / @ + = , # ~`."""
    execution: Required[Execution]
    """What runs."""
    resources: Resources
    """What it runs on; one core by default."""
    iteration: Iteration
    """Makes an array of the job: the same program many times."""
    dependencies: Dependencies
    """What must have ended before."""
    attributes: Dict[str, Any]
    """Anything; it goes to the manager as it is."""


class JobInfo(TypedDict, total=False):
    """Holds what the manager knows of a job, in its own words: the ``data`` of its ``jobInfo`` reply.

    `runtime` holds strings: ``allocation``, ``wd``, ``stdout``, ``stderr``, and once the job has ended ``exit_code``,
    ``rtime`` (h:mm:ss.ffffff) and ``pid``. `history` has a line a state: ``<local time>: <STATE>``.
    """

    jobName: Required[str]
    status: Required[str]
    runtime: Dict[str, str]
    history: str
    messages: str
    iterations: Dict[str, int]
    childs: List[Dict[str, Any]]


class IterationInfo(NamedTuple):
    """One iteration of an array.

    Attributes:
        iteration: its number, ``${it}``.
        state: as of a job.
        exit_code: negative for the number of the signal that ended it; None until it has ended, or when it never ran.
        message: what the manager says of its failure, or an empty string.
        started: when its process was started, in local time with the zone; None when it was not, or when the manager
            does not tell.
        ended: when it reached its final state; None until then, or when the manager does not tell.
        cores: for each node that it was given the numbers of the cores.
        gpus: for each node where it was given GPUs what they are called in the node's environment.
    """

    iteration: int
    state: str
    exit_code: Optional[int]
    message: str
    started: Optional[datetime]
    ended: Optional[datetime]
    cores: Dict[str, List[str]]
    gpus: Dict[str, List[str]] = {}  # noqa: RUF012  # a tuple's default, which nobody changes


@dataclass(frozen=True)
class Capacity:
    """Holds what the manager can give to jobs.

    Attributes:
        nodes: number of nodes.
        cores: cores in all that jobs can use; a reserved core is not among them.
        node_cores: for each node the cores that jobs can use and whether that is the whole node; None when the
            manager does not tell.
        node_resources: for each node how much it has of each consumable resource (``gpu``), in the same order;
            None when the manager does not tell.
    """

    nodes: int
    cores: int
    node_cores: Optional[Tuple[Tuple[int, bool], ...]] = None
    node_resources: Optional[Tuple[Mapping[str, int], ...]] = None

    def most(self, resource: str) -> Optional[int]:
        """Return how much of a consumable resource the node has that has most of it; None when that is not known."""
        if self.node_resources is None:
            return None
        return max((has.get(resource, 0) for has in self.node_resources), default=0)

    def suitable(self, cores: Optional[int], resources: Mapping[str, int]) -> Optional[int]:
        """Return how many nodes can give a job so many cores, or all of theirs, and consumable resources.

        None when that is not known.
        """
        if self.node_cores is None:
            return None
        return sum(
            (whole if cores is None else usable >= cores) and _has(has, resources)
            for (usable, whole), has in zip(self.node_cores, self.node_resources or itertools.repeat(None))
        )

    def at_a_time(
        self, cores: int, nodes: Optional[int], resources: Mapping[str, int], *, on_one_node: bool = False
    ) -> int:
        """Return how many jobs of that size can run at a time, 1 at least.

        `resources` are on each node. Without `nodes` the cores of each may have to be on one node.
        """
        if nodes is None and on_one_node and self.node_cores is not None:
            most = sum(usable // cores for usable, _ in self.node_cores)
        else:
            most = self.cores // (cores * (nodes or 1))
        if resources and self.node_resources is not None:
            counts = [
                min(has.get(name, 0) // count for name, count in resources.items()) for has in self.node_resources
            ]
            most = min(most, sum(counts) // (nodes or 1))
        return max(1, most)


def _has(has: Optional[Mapping[str, int]], wanted: Mapping[str, int]) -> bool:
    return has is None or all(has.get(name, 0) >= count for name, count in wanted.items())
