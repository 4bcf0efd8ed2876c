"""Interrupted runs: what is kept of a run while it lasts, and how the next manager takes it up.

::

    track.reqs     a line for each job that was taken         } written before the client hears of it
    track.states   a line for each end of a job or iteration  }
    track.starts   a line for each start, where what was interrupted is not to run again
    track.removals a line for each job that was removed
    track.cancels  a line for each job that was cancelled when the run had no manager, or has many iterations to cancel
    jobs.report    the same ends, with all that is known of them; those that the interruption itself brought about
                   bear "interrupted" in their "runtime", and count for nothing here

A name can be used again once its job has ended and was removed; its last submission is the job, and what is on record
of earlier ones counts for nothing here (see _shared/protocol.py). Each file may have lost its last lines: what one
tells is true.

An end that was brought about from outside, by the run's end or by that of a node, is a true end in the record, and
counts for nothing when the run is resumed.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Set, Tuple

from qcg.pilotjob.errors import InvalidResourceSpec
from qcg.pilotjob.joblist import Job, JobState
from qcg.pilotjob.manager import SchedulingJob
from qcg.pilotjob.resume import StateTracker

from qcg.pilotjob.executor_api._manager.arrays import make_job, parts_of
from qcg.pilotjob.executor_api._manager.presence import CannotResume
from qcg.pilotjob.executor_api._manager.records import LinesFile, Record, numbered
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.ownership import NotOwned, open_owned
from qcg.pilotjob.executor_api._shared.protocol import INTERRUPTED, STARTS, SUBMISSION, Submissions
from qcg.pilotjob.executor_api._shared.run_files import CANCELS, REMOVALS
from qcg.pilotjob.executor_api._shared.times import moment_of

__all__ = ["Interruptions", "ResumedJob", "Tracker"]


class Interruptions:
    """The jobs and iterations that were interrupted."""

    def __init__(self) -> None:
        self._interrupted: Set[Tuple[str, Optional[int]]] = set()

    def add(self, job: Job, iteration: Optional[int]) -> None:
        """Count the end of a job, or of an iteration, that is to come as an interruption."""
        self._interrupted.add((job.name, iteration))

    def forget(self, name: str) -> None:
        """Forget a job that was removed: its name may be that of another one now."""
        self._interrupted = {(job, iteration) for job, iteration in self._interrupted if job != name}

    def caused(self, job: Job, iteration: Optional[int], state: JobState) -> bool:
        """Return whether an interruption has brought about that a job, or an iteration, ends in `state`.

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


_logger = logging.getLogger(__name__)

_LOST = "it ran when its manager's allocation ended, and what was interrupted is not to run again (rerun=False)"


class Tracker(StateTracker):  # type: ignore[misc]  # the core is untyped
    """Keeps what is needed to take up a run, whole lines only.

    Mends C16 (a torn last line makes it impossible). Can go when the core does as much.
    """

    def __init__(self, path: str, *, reruns: bool) -> None:
        """Keep the files in the directory `path`; `reruns` tells whether what was interrupted runs again."""
        super().__init__(path)
        self.reruns = reruns
        self._starts = LinesFile(Path(path, STARTS))
        self._requests = LinesFile(Path(self.reqs_file))
        self._ends = LinesFile(Path(self.finished_file))
        self._cancels = LinesFile(Path(path, CANCELS))
        self._removals = LinesFile(Path(path, REMOVALS))

    @override
    def new_submited_jobs(self, jobs: List[Job]) -> None:
        """Keep the jobs; an OSError says that they are not kept, none of them."""
        self._requests.append("".join(f"{job.to_json()}\n" for job in jobs).encode())

    @override
    def job_finished(self, job: Job, iteration: Optional[int]) -> None:
        """Keep an end; what cannot be written now is written with the next one."""
        end = {
            "task": job.get_name(iteration), "iteration": iteration, "state": job.str_state(iteration), **numbered(job)
        }  # fmt: skip
        self._ends.append_sooner_or_later(json.dumps(end).encode() + b"\n")

    def jobs_removed(self, submissions: Mapping[str, int]) -> None:
        """Keep that jobs were removed; `submissions` has their numbers."""
        lines = [
            json.dumps({"task": name, **({} if number == 1 else {SUBMISSION: number})}) + "\n"
            for name, number in submissions.items()
        ]
        self._removals.append_sooner_or_later("".join(lines).encode())

    def job_cancelled(self, job: Job) -> None:
        """Keep that a whole job is cancelled, before all its iterations are."""
        self._cancels.append_sooner_or_later(json.dumps({"task": job.name, **numbered(job)}).encode() + b"\n")

    def flush(self) -> None:
        """Write what could not be written before, if that is possible now."""
        for file in (self._starts, self._ends, self._cancels, self._removals):
            file.append_sooner_or_later(b"")

    def job_started(self, job: Job, iteration: Optional[int]) -> None:
        """Keep a start, if anybody will want to know of it."""
        if not self.reruns:
            start = {"task": job.get_name(iteration), **numbered(job)}
            self._starts.append_sooner_or_later(json.dumps(start).encode() + b"\n")

    @staticmethod
    @override
    def resume(path: str, manager: Any, progress: bool = False) -> List[Job]:
        """Register the jobs of an interrupted run, ended ones too, and return those that have to run.

        Raises:
            CannotResume: a file cannot be read, or a job does not fit in here.
        """
        run = _InterruptedRun(Path(path), Path(manager.record.report_file), reruns=manager.settings.reruns)
        jobs = list(run.jobs())
        for name, number in run.removed.items():
            manager.was_removed(name, number)
        left = [job for job in jobs if not job.state().is_finished()]
        for job in left:
            try:
                manager.place(job)
            except InvalidResourceSpec as error:
                raise CannotResume(f"job {job.name} can never run: {error}") from error
            hopeless = manager.hopeless(job)
            if hopeless:
                raise CannotResume(f"job {job.name} {hopeless}; give it more resources")
        for job in jobs:
            manager.job_list.add(job)
            if run.submission(job) > 1:
                manager.resubmitted(job, run.submission(job))
            run.complete(job, manager.tracer, manager.record)
        _logger.info("of %d jobs of the interrupted run %d have not ended", len(jobs), len(left))
        if progress:
            print(f"{len(jobs)} jobs of the interrupted run, {len(left)} of them to run")
        return left


class ResumedJob(SchedulingJob):  # type: ignore[misc]  # the core is untyped
    """A job whose iterations may have ended, in whatever order.

    Mends C15: the core takes as many iterations as have ended from the front, whichever they were. Can go when the
    core looks at each.
    """

    _first_time = True

    @override
    def setup_iterations(self) -> None:
        if self._first_time:
            self._first_time = False
            self._current_solved_iterations = 0
        while True:
            super().setup_iterations()
            self._iteration_sub_jobs[:] = [
                one for one in self._iteration_sub_jobs if not self.job.state(one.iteration).is_finished()
            ]
            if self._iteration_sub_jobs or self._current_solved_iterations >= self._total_iterations:
                return


class _InterruptedRun:
    """Holds what the files of a run tell."""

    def __init__(self, directory: Path, report: Path, *, reruns: bool) -> None:
        self._requests: Dict[str, Dict[str, Any]] = {}
        self._submitted: Counter[str] = Counter()
        for request in _lines(directory / "track.reqs"):
            self._requests.pop(request["name"], None)  # the last one of a name stands where it was submitted
            self._requests[request["name"]] = request
            self._submitted[request["name"]] += 1
        starts = () if reruns else _lines(directory / STARTS)
        self._started = {start["task"] for start in starts if self._is_last(start["task"], start.get(SUBMISSION, 1))}
        self._tracked: Set[str] = set()
        self._reported: Set[str] = set()
        self._ends: Dict[str, Dict[str, Any]] = {}
        numbers = Submissions()
        for end in _lines(directory / "track.states"):
            if self._is_last(end["task"], numbers.of(end["task"], end, interrupted=False)):
                self._tracked.add(end["task"])
                self._ends[end["task"]] = {"state": end["state"]}
        self._started -= self._tracked
        removals = _lines(directory / REMOVALS)
        removed = {one["task"] for one in removals if self._is_last(one["task"], one.get(SUBMISSION, 1))}
        self.removed = {name: self._submitted[name] for name in removed}
        cancels = _lines(directory / CANCELS)
        self._cancelled = {one["task"] for one in cancels if self._is_last(one["task"], one.get(SUBMISSION, 1))}
        numbers = Submissions()
        for line in _lines(report):
            interrupted = INTERRUPTED in line["runtime"]
            number = numbers.of(line["name"], line, interrupted=interrupted)
            if not interrupted and self._is_last(line["name"], number):
                self._reported.add(line["name"])
                self._ends[line["name"]] = line

    def _is_last(self, task: str, number: int) -> bool:
        """Return whether that submission of a job is its last one; only of that one the end counts."""
        return number == self._submitted[task.partition(":")[0]]

    def submission(self, job: Job) -> int:
        """Return which submission of its name a job is."""
        return self._submitted[job.name]

    def jobs(self) -> Iterator[Job]:
        """Yield the jobs in the order of their submission, in the states that they had reached.

        A job that was removed is not among them, except where one that has not ended waits for it.
        """
        for name, request in list(self._requests.items()):
            if name in self.removed and not self._is_waited_for(name):
                continue
            job = make_job(request)
            job.canceled = job.name in self._cancelled
            for iteration in _parts_and_whole(job):
                self._restore(job, iteration)
            yield job

    def _is_waited_for(self, name: str) -> bool:
        return any(
            name in (one.partition(":")[0] for one in (request.get("dependencies") or {}).get("after", ()))
            for other, request in self._requests.items()
            if other not in self._ends
        )

    def complete(self, job: Job, tracker: Tracker, record: Record) -> None:
        """Add to each file the ends that only another one tells."""
        for iteration in _parts_and_whole(job):
            if job.state(iteration).is_finished():
                name = job.get_name(iteration)
                if name not in self._reported:
                    record.report_job(job, iteration)
                if name not in self._tracked:
                    tracker.job_finished(job, iteration)

    def _restore(self, job: Job, iteration: Optional[int]) -> None:
        name = job.get_name(iteration)
        if name not in self._ends:
            if (name in self._cancelled or job.name in self._cancelled) and not job.state(iteration).is_finished():
                job.set_state(JobState.CANCELED, iteration)
            elif name in self._started:
                job.set_state(JobState.FAILED, iteration, _LOST)
            return
        end = self._ends[name]
        state = JobState[end["state"]]
        if job.state(iteration) != state:  # the end of the last iteration is that of the whole
            job.set_state(state, iteration)
        if "messages" in end:
            (job if iteration is None else job._get_subjob(iteration)).append_message(end["messages"])
        job.history(iteration)[:] = list(_history(end.get("history", [])))  # without one, nobody knows the times
        job.append_runtime(end.get("runtime", {}), iteration)


def _parts_and_whole(job: Job) -> List[Optional[int]]:
    """Return the iterations, and None for the job as a whole: in the order in which they end."""
    return [*(parts_of(job) if job.has_iterations else ()), None]


def _history(entries: List[Dict[str, Any]]) -> Iterator[Tuple[JobState, datetime]]:
    for entry in entries:
        yield JobState[entry["state"]], moment_of(entry)


def _lines(path: Path) -> Iterator[Dict[str, Any]]:
    """Yield the lines of a file, without a last one that is torn: that is cut off, for the next one to stand alone."""
    try:
        with open_owned(path, os.O_RDWR) as file:
            content = file.read()
            lines = content.split(b"\n")
            torn = lines.pop()
            if torn:
                _logger.warning("%s ends with a torn line, which is removed: %r", path, torn)
                file.truncate(len(content) - len(torn))
    except FileNotFoundError:
        return
    except NotOwned as error:
        raise CannotResume(f"what is on record there may be another user's: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise CannotResume(
                f"line {number} of {path} cannot be read ({error}); remove it if what it tells can be lost: in "
                "track.reqs a job, in the others the end of one, which then runs again"
            ) from None
