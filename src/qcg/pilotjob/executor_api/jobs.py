"""The job description, as the manager takes it, in types.

Templates render to these dictionaries; validation.py turns what a user wrote into what can be sent, or says what is
wrong with it. The keys and their meaning are the manager's own ("standard" format); what this package adds is in
`Execution`.
"""

from __future__ import annotations

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


class Execution(TypedDict, total=False):
    """What runs. Either `exec` (with `args`) or `script`; relative paths are below `wd`, and `wd` below the executor's.

    `env` may stand beside `script` too: it is exported at the head of the script.
    """

    exec: str
    args: List[str]
    script: str
    env: Dict[str, str]
    stdin: str
    stdout: str
    stderr: str
    modules: List[str]
    venv: str
    wd: str
    model: str
    model_opts: Dict[str, Any]


class Size(TypedDict, total=False):
    """A number of cores or nodes: `exact`, or a range that the manager may choose from."""

    exact: int
    min: int
    max: int
    scheduler: Dict[str, Any]


class Resources(TypedDict, total=False):
    """`numCores` counts cores on each node when `numNodes` is given, else in all; `wt` is a walltime like ``1h30m``."""

    numCores: Union[int, Size]
    numNodes: Union[int, Size]
    wt: str
    nodeCrs: Dict[str, int]


class Iteration(TypedDict, total=False):
    """The range ``start <= ${it} < stop``, or `values`, which `${itval}` runs through."""

    start: int
    stop: int
    values: List[str]


class Dependencies(TypedDict, total=False):
    """`after` names jobs (or ``name:iteration``) that must succeed first."""

    after: List[str]


class Job(TypedDict, total=False):
    """One job. A name is given to it when it has none."""

    name: str
    execution: Required[Execution]
    resources: Resources
    iteration: Iteration
    dependencies: Dependencies
    attributes: Dict[str, Any]


class JobInfo(TypedDict, total=False):
    """What the manager knows of a job, in its own words: the ``data`` of its ``jobInfo`` reply.

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
        started: when its process was started, in local time; None when it was not, or the manager does not tell.
        ended: when it reached its final state; None until then, or when the manager does not tell.
        cores: for each node that it was given the numbers of the cores.
    """

    iteration: int
    state: str
    exit_code: Optional[int]
    message: str
    started: Optional[datetime]
    ended: Optional[datetime]
    cores: Dict[str, List[str]]


@dataclass(frozen=True)
class Capacity:
    """What the manager can give to jobs.

    Attributes:
        nodes: number of nodes.
        cores: cores in all that jobs can use; a reserved core is not among them.
        node_cores: for each node the cores that jobs can use and whether that is the whole node; None when the
            manager does not tell.
        resources: names of the consumable resources (``gpu``, ``mem``) that some node has, with the most that one
            node has; None when the manager does not tell.
    """

    nodes: int
    cores: int
    node_cores: Optional[Tuple[Tuple[int, bool], ...]] = None
    resources: Optional[Mapping[str, int]] = None
