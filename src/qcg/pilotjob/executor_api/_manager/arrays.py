"""Jobs with iterations, of which the core makes an object each at once.

Can go when the core makes them when they are needed.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Optional

from qcg.pilotjob.errors import IllegalJobDescription
from qcg.pilotjob.joblist import Job, JobIteration, SubJobState

from qcg.pilotjob.executor_api._shared.rules import MOST_ITERATIONS

__all__ = ["States", "make_job", "parts_of", "why_not_split"]

_SPLIT_INTO = "split-into"


class States:
    """The states of an array's iterations, in place of the core's list: one that nobody has asked for is not made."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._made: Dict[int, SubJobState] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> SubJobState:
        if not -self._count <= index < self._count:
            raise IndexError(index)
        state = self._made.get(index % self._count)
        if state is None:
            state = self._made[index % self._count] = SubJobState()
        return state

    def __iter__(self) -> Iterator[SubJobState]:
        return map(self.__getitem__, range(self._count))

    def made(self) -> Iterator[SubJobState]:
        """Return those that have been asked for; all others are QUEUED, and nothing is known of them."""
        return iter(self._made.values())


def make_job(description: Dict[str, Any]) -> Job:
    """Return a job from its description.

    Raises:
        IllegalJobDescription: it is no description, or has too many iterations.
    """
    iteration = description.get("iteration")
    if not isinstance(iteration, dict):
        return Job(**description)
    job = Job(**{**description, "iteration": None})
    try:
        job._iteration = JobIteration(**iteration)
        count = job._iteration.iterations()
        if count > MOST_ITERATIONS:
            raise IllegalJobDescription(f"it has {count} iterations; an array has {MOST_ITERATIONS} at the most")
    except TypeError as error:
        raise IllegalJobDescription(f"Job iteration wrong specification: {error}") from error
    job._subjobs, job._subjobs_not_finished, job._subjobs_failed = States(count), count, 0
    return job


def why_not_split(job: Job, cores: int) -> str:
    """Return why an array cannot share `cores` among its parts, as what comes behind "the job"; nothing when it can."""
    wanted = job.resources.cores if job.has_iterations and job.resources.has_cores else None
    scheduler = wanted.scheduler if wanted is not None else None
    if not scheduler or scheduler.get("name") != _SPLIT_INTO:
        return ""
    parts = int((scheduler.get("params") or {}).get("parts", job.iteration.iterations()))
    return f"is split into {parts} parts, and there are {cores} cores" if parts > cores else ""


def parts_of(job: Job) -> List[Optional[int]]:
    """Return what of a job is started and ended: its iterations, or the job itself."""
    return list(job.iteration.iterations_gen()) if job.has_iterations else [None]
