"""One job, or one iteration of an array, as a row of the record."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Dict, List, Optional, Tuple, TypedDict

from qcg.pilotjob.executor_api._shared.job_info import by_node
from qcg.pilotjob.executor_api._shared.protocol import INTERRUPTED
from qcg.pilotjob.executor_api._shared.texts import signal_of, visible
from qcg.pilotjob.executor_api._shared.times import moment_of
from qcg.pilotjob.executor_api.jobs import FINAL_STATES

__all__ = ["UNFINISHED", "RunRow", "Task", "make_row", "spent", "split_task", "task_of", "unfinished_row"]

UNFINISHED = "UNFINISHED"
"""The state of what was submitted and has no end on record: it waits, it runs, or it was lost with its manager."""

Task = Tuple[str, Optional[int]]


class RunRow(TypedDict):
    """One job, or one iteration of an array, in a `RunRecord`.

    Times are local, with the zone of where the record is read. Records of release 0.15 and of the bare core have no
    zones: their times are taken for local ones.

    Characters of names and messages that cannot be shown, such as halves of surrogate pairs, are written as in Python.

    Attributes:
        name: of the job; for an iteration that of its array.
        iteration: its number, None for a job.
        state: as of a job, or ``UNFINISHED``: submitted, and the record has no end of it.
        exit_code: negative for the number of a signal; None when it has not ended or never ran.
        signal: the name of the signal that ended it, also where its shell says so by an exit code above 128; else None.
        submitted: when the manager took it, in a resumed run the manager that ran it; None when it is not known.
        started: when its process was started, the last time; None when it was not.
        ended: when it reached its final state; None when it has not.
        seconds: from `started` to `ended`; None when one of them is.
        nodes: the names of the nodes that it was given.
        cores: how many cores it was given, on all nodes; 0 when it was given none.
        core_numbers: for each node the numbers of these cores.
        gpus: for each node where it was given GPUs what they are called there.
        core_seconds: `seconds` times `cores`; None when `seconds` is.
        stdout: the file with its standard output, None when that was not kept.
        stderr: the file with its standard error, None when that was not kept.
        message: what the manager says of its failure, or an empty string.
        interrupted: it was ended by the end of its manager or its node, not by itself or the user.
        run: the manager's directory; an empty string for a manager of the bare core that was given to the executor.
    """

    name: str
    iteration: Optional[int]
    state: str
    exit_code: Optional[int]
    signal: Optional[str]
    submitted: Optional[datetime]
    started: Optional[datetime]
    ended: Optional[datetime]
    seconds: Optional[float]
    nodes: List[str]
    cores: int
    core_numbers: Dict[str, List[str]]
    gpus: Dict[str, List[str]]
    core_seconds: Optional[float]
    stdout: Optional[str]
    stderr: Optional[str]
    message: str
    interrupted: bool
    run: str


def make_row(task: Task, entry: Dict[str, Any], run: str, submitted: Optional[datetime] = None) -> RunRow:
    """Return the row of what the manager says, in its record or in an answer, of a job or an iteration.

    `submitted` is when the whole was, of which this is an iteration.
    """
    runtime: Dict[str, Any] = entry.get("runtime", {})
    times = {step["state"]: moment_of(step) for step in entry.get("history", ())}
    state = visible(str(entry["state"]))
    started = times.get("EXECUTING")
    ended = times.get(state) if state in FINAL_STATES else None
    seconds = (ended - started).total_seconds() if started and ended else None
    placed = by_node(visible(str(runtime.get("allocation", ""))))
    cores = sum(map(len, placed.values()))
    exit_code = int(runtime["exit_code"]) if "exit_code" in runtime else None
    return RunRow(
        name=task[0],
        iteration=task[1],
        state=state,
        exit_code=exit_code,
        signal=visible(str(runtime["signal"])) if "signal" in runtime else signal_of(exit_code),
        submitted=times.get("QUEUED", submitted),
        started=started,
        ended=ended,
        seconds=seconds,
        nodes=list(placed),
        cores=cores,
        core_numbers=placed,
        gpus=by_node(visible(str(runtime.get("gpus", "")))),
        core_seconds=None if seconds is None else seconds * cores,
        stdout=_path(runtime, "stdout"),
        stderr=_path(runtime, "stderr"),
        message=visible(str(entry.get("messages") or "")),
        interrupted=INTERRUPTED in runtime,
        run=run,
    )


def _path(runtime: Dict[str, Any], stream: str) -> Optional[str]:
    return None if runtime.get(stream) is None else str(runtime[stream])


def unfinished_row(task: Task, run: str) -> RunRow:
    """Return the row of what was submitted, when nothing more is known."""
    return make_row(task, {"state": UNFINISHED}, run)


def task_of(row: RunRow) -> Task:
    """Return what identifies the job or iteration within its run."""
    return row["name"], row["iteration"]


def split_task(name: str) -> Task:
    """Return job and iteration of a ``job`` or ``job:iteration``."""
    job, colon, number = name.partition(":")
    return job, int(number) if colon else None


def spent(row: RunRow, now: datetime) -> float:
    """Return the core-seconds that were used, up to `now` by what is running."""
    if row["core_seconds"] is not None:
        return row["core_seconds"]
    if row["started"] is None or row["state"] != "EXECUTING":
        return 0.0
    return max(0.0, (now - row["started"]).total_seconds()) * row["cores"]
