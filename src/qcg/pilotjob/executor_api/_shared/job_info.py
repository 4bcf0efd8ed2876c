"""Read what a manager tells of a job: where it ran, why it failed, how its iterations fare."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, List, Optional

from qcg.pilotjob.executor_api._shared.run_files import tail
from qcg.pilotjob.executor_api._shared.texts import state_text
from qcg.pilotjob.executor_api._shared.times import moment_of
from qcg.pilotjob.executor_api.errors import JobFailed
from qcg.pilotjob.executor_api.jobs import FINAL_STATES, IterationInfo, JobInfo

__all__ = ["by_node", "failure_of", "is_named_after", "iterations_of"]


def by_node(allocation: str) -> Dict[str, List[str]]:
    """Read the core's ``node[core:core],node[core]``; GPUs are written in the same way. A node may have none."""
    nodes = (part.rstrip("]").partition("[") for part in allocation.split(",") if part)
    return {name: cores.split(":") if cores else [] for name, _, cores in nodes}


_TAIL_LINES = 10
_MOST_ITERATIONS = 10


def failure_of(name: str, state: str, info: Optional[JobInfo]) -> JobFailed:
    """Return the exception that tells why the job `name` ended in `state`; for an array, by its first failure."""
    if info is None:
        return JobFailed(name, state, message="the manager does not know the job any more")
    failures = [child for child in info.get("childs", []) if child["state"] != "SUCCEED"]
    runtime: Dict[str, Any] = dict(failures[0].get("runtime", {}) if failures else info.get("runtime", {}))
    message = str(info.get("messages", ""))
    if failures:
        message = "\n".join(text for text in (message, _which_failed(failures)) if text)
    stdout, stderr = _path(runtime, "stdout"), _path(runtime, "stderr")
    stderr_tail = tail(stderr, _TAIL_LINES) if stderr else ""
    quoted = stderr if stderr_tail else stdout
    iteration = failures[0]["iteration"] if failures else None
    return JobFailed(
        name,
        state,
        exit_code=int(runtime["exit_code"]) if "exit_code" in runtime else None,
        signal=runtime.get("signal"),
        message=message,
        stdout=stdout,
        stderr=stderr,
        stderr_tail=stderr_tail,
        stdout_tail=tail(stdout, _TAIL_LINES) if stdout and not stderr_tail else "",
        may_be_others=quoted is not None and not is_named_after(name, iteration, quoted),
    )


def is_named_after(name: str, iteration: Optional[int], path: Path) -> bool:
    """Return whether a file's name begins with that of a job, and has the number of the iteration in it.

    What is said in a file with another name may be said by another job that was given the same file.
    """
    named = re.match(re.escape(name.rpartition("/")[2]) + r"[^A-Za-z0-9](.*)", path.name, re.DOTALL)
    return named is not None and (iteration is None or re.search(rf"(?<!\d){iteration}(?!\d)", named[1]) is not None)


def iterations_of(info: JobInfo) -> List[IterationInfo]:
    """Return the iterations that the manager's ``jobInfo``, or its record, tells of."""
    return [_iteration(child) for child in info.get("childs", [])]


def _iteration(child: Dict[str, Any]) -> IterationInfo:
    runtime = child.get("runtime", {})
    times = {entry["state"]: moment_of(entry) for entry in child.get("history", [])}
    return IterationInfo(
        iteration=child["iteration"],
        state=child["state"],
        exit_code=int(runtime["exit_code"]) if "exit_code" in runtime else None,
        message=child.get("messages", ""),
        started=times.get("EXECUTING"),
        ended=times.get(child["state"]) if child["state"] in FINAL_STATES else None,
        cores=by_node(runtime.get("allocation", "")),
        gpus=by_node(runtime.get("gpus", "")),
    )


def _path(runtime: Dict[str, Any], stream: str) -> Optional[Path]:
    return Path(runtime[stream]) if stream in runtime else None


def _state(state: str, runtime: Dict[str, Any]) -> str:
    return state_text(state, int(runtime["exit_code"]) if "exit_code" in runtime else None, runtime.get("signal"))


def _which_failed(failures: List[Dict[str, Any]]) -> str:
    shown = [
        f"iteration {child['iteration']} {_state(child['state'], child.get('runtime', {}))}"
        + (f": {child['messages']}" if child.get("messages") else "")
        for child in failures[:_MOST_ITERATIONS]
    ]
    if len(failures) > _MOST_ITERATIONS:
        shown.append(f"and {len(failures) - _MOST_ITERATIONS} more")
    return "; ".join(shown)
