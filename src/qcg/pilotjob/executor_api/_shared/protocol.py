"""Write and read what client and manager say to each other: requests, replies, events, and files of the run.

A name can be used again when its job has ended and was removed, so a job is a submission, not a name. The manager
numbers the submissions of each name from 1 on, in the order of ``track.reqs``. Numbers other than 1 stand
as "submission" in the lines of ``jobs.report``, ``track.states`` and ``track.starts``, in events, and in the replies to
``submit``, ``jobStatus`` and ``removeJob``.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence, Set, Tuple

__all__ = [
    "ANSWER_SECONDS",
    "DETACH",
    "FINISH_RUNNING",
    "HELLO",
    "INTERRUPTED",
    "JOB_FINISHED",
    "RETURNS",
    "STARTS",
    "SUBMISSION",
    "WAITING",
    "Submissions",
    "details",
    "event",
    "request",
    "started_in",
    "states",
    "submission",
    "submissions",
]

ANSWER_SECONDS = 60.0
"""How long a manager that lives may take to answer."""

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


SUBMISSION = "submission"


class Submissions:
    """Tells of the lines of a file of ends, in their order, to which submission of its name each belongs.

    Lines up to release 0.15 have no numbers. There the end of a whole job, which follows those of its iterations, ends
    a submission, unless it was interrupted.
    """

    def __init__(self) -> None:
        self._whole: Dict[str, int] = {}

    def of(self, name: str, line: Mapping[str, Any], *, interrupted: bool) -> int:
        """Return the number of the submission that a line is about; `name` is that of a job, or of an iteration."""
        job, colon, _ = name.partition(":")
        number = int(line.get(SUBMISSION) or self._whole.get(job, 0) + 1)
        if not colon and not interrupted:
            self._whole[job] = number
        return number


STARTS = "track.starts"
"""A line for each start of a job or iteration, where that is kept."""


def started_in(run: str) -> Set[str]:
    """Return the names of the jobs of a run that have started, arrays of which an iteration has among them."""
    try:
        with open(os.path.join(run, STARTS), "rb") as file:
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return set()
    return {json.loads(line)["task"].partition(":")[0] for line in lines}
