"""Which ends were brought about from outside: by the run's end or by that of a node, not by the job or by its user.

They are true ends in the record, and count for nothing when the run is resumed.
"""

from __future__ import annotations

from typing import Optional, Set, Tuple

from qcg.pilotjob.joblist import Job, JobState

__all__ = ["Interruptions"]


class Interruptions:
    """The jobs and iterations that were interrupted."""

    def __init__(self) -> None:
        self._interrupted: Set[Tuple[str, Optional[int]]] = set()

    def add(self, job: Job, iteration: Optional[int]) -> None:
        """Let the end of a job, or of an iteration, that is to come count as an interruption."""
        self._interrupted.add((job.name, iteration))

    def forget(self, name: str) -> None:
        """Forget a job that was removed: its name may be that of another one now."""
        self._interrupted = {(job, iteration) for job, iteration in self._interrupted if job != name}

    def caused(self, job: Job, iteration: Optional[int], state: JobState) -> bool:
        """Whether an interruption has brought about that a job, or an iteration, ends in `state`.

        So it is with what waited for an interrupted job, and with an array as a whole of which a part was interrupted.
        """
        if state == JobState.SUCCEED:
            return False
        if state == JobState.OMITTED and self._waited_for_one(job, iteration):
            self.add(job, iteration)
        parts = job.iteration.iterations_gen() if iteration is None and job.has_iterations else ()
        if any((job.name, number) in self._interrupted for number in parts):
            self.add(job, None)
        return (job.name, iteration) in self._interrupted

    def _waited_for_one(self, job: Job, iteration: Optional[int]) -> bool:
        for dependency in job.dependencies.after if job.has_dependencies else ():
            name, _, number = dependency.partition(":")
            if number == "${it}" and iteration is not None:
                number = str(iteration)
            if (name, int(number) if number.isdigit() else None) in self._interrupted:
                return True
        return False
