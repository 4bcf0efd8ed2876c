"""The manager's messages: what is asked, how replies and events read."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, Optional, Sequence, Tuple

from qcg.pilotjob.executor_api._shared.submissions import SUBMISSION

__all__ = [
    "DETACH",
    "FINISH_RUNNING",
    "HELLO",
    "INTERRUPTED",
    "JOB_FINISHED",
    "RETURNS",
    "WAITING",
    "details",
    "event",
    "request",
    "states",
    "submission",
    "submissions",
]

JOB_FINISHED = "JFI"  # the core's topic for the end of a whole job
FINISH_RUNNING = "finishAfterRunningJobs"  # our manager's command beside the core's finishAfterAllTasksDone
DETACH = "detach"  # the same: it goes on without a client
INTERRUPTED = "interrupted"  # the mark in the "runtime" on record of what the manager's own end has ended
WAITING = "WFC"  # our manager's event as long as a job waits for cores, with the one that has waited longest
RETURNS = "qcgpj_returns"  # the attribute of a worker's job whose cores another one had meanwhile: it is the next one.
# Its value is how the names of the pool's workers begin: on any other job it says nothing.
HELLO = "HLO"  # our manager's greeting to a new subscriber: from here on it misses nothing

_decode = json.JSONDecoder().raw_decode  # json.loads looks for blanks around it, which is a third of its time


def submission(jobs: Iterable[str]) -> bytes:
    """Return a request to run `jobs`, which are JSON already."""
    return f'{{"request":"submit","jobs":[{",".join(jobs)}]}}'.encode()


def request(name: str, jobs: Optional[Sequence[str]] = None, **fields: Any) -> bytes:
    """Return another request; `jobs` are names."""
    message: Dict[str, Any] = {"request": name, **fields}
    if jobs is not None:
        message["jobNames"] = list(jobs)
    return json.dumps(message, separators=(",", ":")).encode()


def event(message: bytes) -> Tuple[str, Dict[str, Any]]:
    """Return an event's topic and its content."""
    text = message.decode()
    end = text.index(" ")
    return text[:end], _decode(text, end + 1)[0]


def states(reply: Dict[str, Any]) -> Dict[str, str]:
    """Return the states in a ``jobStatus`` reply; jobs that the manager could not look up are left out."""
    return {name: data["status"] for name, data in details(reply).items()}


def submissions(reply: Dict[str, Any]) -> Dict[str, int]:
    """Return which submission of its name each job is in a ``jobStatus`` reply, except for first ones."""
    return {name: data[SUBMISSION] for name, data in details(reply).items() if SUBMISSION in data}


def details(reply: Dict[str, Any]) -> Dict[str, Any]:
    """Return what a ``jobStatus`` or ``jobInfo`` reply tells of each job that the manager could look up."""
    jobs = reply.get("data", {}).get("jobs", {})
    return {name: answer["data"] for name, answer in jobs.items() if "data" in answer}
