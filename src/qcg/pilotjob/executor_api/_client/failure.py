"""Why a job failed, from what the manager knows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional

from qcg.pilotjob.executor_api._client.process import tail
from qcg.pilotjob.executor_api.errors import JobFailed
from qcg.pilotjob.executor_api.jobs import JobInfo

__all__ = ["failure_of"]

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
    return JobFailed(
        name,
        state,
        exit_code=int(runtime["exit_code"]) if "exit_code" in runtime else None,
        message=message,
        stdout=stdout,
        stderr=stderr,
        stderr_tail=stderr_tail,
        stdout_tail=tail(stdout, _TAIL_LINES) if stdout and not stderr_tail else "",
    )


def _path(runtime: Dict[str, Any], stream: str) -> Optional[Path]:
    return Path(runtime[stream]) if stream in runtime else None


def _which_failed(failures: List[Dict[str, Any]]) -> str:
    shown = [
        f"iteration {child['iteration']} {child['state']}"
        + (f" with exit code {child['runtime']['exit_code']}" if "exit_code" in child.get("runtime", {}) else "")
        + (f": {child['messages']}" if child.get("messages") else "")
        for child in failures[:_MOST_ITERATIONS]
    ]
    if len(failures) > _MOST_ITERATIONS:
        shown.append(f"and {len(failures) - _MOST_ITERATIONS} more")
    return "; ".join(shown)
