"""Read what the manager has put on record of the jobs that have ended: its file ``jobs.report``."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Dict, List, Optional, Set, Tuple

from qcg.pilotjob.executor_api._shared.protocol import INTERRUPTED, SUBMISSION
from qcg.pilotjob.executor_api._shared.times import moment_of
from qcg.pilotjob.executor_api.jobs import JobInfo

__all__ = ["Ends", "Report"]


_Place = Tuple[int, int]
"""Where a line begins, and how long it is."""


@dataclass
class _Job:
    """Holds the places of the lines of a job and of its iterations."""

    place: Optional[_Place]
    iterations: Dict[int, _Place]


class Report:
    """Reads the report, each line once, and keeps where a job's line stands. Any thread may ask.

    Of the part before `resumed_at`, in bytes, which is older than the manager, what bears the mark of an interruption
    does not count as an end: it runs again. Where another allocation may follow, no `interrupted` end counts. Of a job
    of which somebody else has told that this was its end, it is known all the same how it came.

    Of a name that was used again the last submission is what is told, unless an earlier one is asked for.
    """

    def __init__(self, path: Path, resumed_at: int = 0, *, interrupted: bool = True) -> None:
        self.path = path
        self._counts_interrupted = interrupted
        self._resumed_at = resumed_at
        self._lock = threading.RLock()
        self._read = 0
        self._places: Dict[str, _Place] = {}
        self._interruptions: Dict[str, _Place] = {}
        self._numbers: Dict[str, Set[int]] = {}
        self._submissions: Dict[str, int] = {}  # of names that were used again, the last one
        self._earlier: Dict[Tuple[str, int], _Job] = {}

    def state(self, name: str, *, interrupted: bool = True) -> str:
        """Return the state in which a job or iteration has ended, an empty string when it is not on record.

        An end that bears the mark of an interruption counts only where `interrupted` ones do.
        """
        line = self._for_this_thread()._line(name, only_ends=True)
        return str(line["state"]) if line and (interrupted or INTERRUPTED not in line["runtime"]) else ""

    def submission(self, name: str) -> int:
        """Return which submission of its name is the last one of which there is something on record."""
        return self._submissions.get(name, 1)

    def info(self, name: str, submission: int) -> Optional[JobInfo]:
        """Return what is on record of a job, in the form of the manager's ``jobInfo``; None when nothing is.

        `submission` tells which one of that name.
        """
        return self._for_this_thread()._info(name, submission)

    def _info(self, name: str, submission: int) -> Optional[JobInfo]:
        line = self._line(name)  # which reads what is new, too
        last = self._submissions.get(name, 1)
        job = self._job(name) if submission == last else self._earlier.get((name, submission))
        if job is None or job.place is None:
            return None
        if submission != last:
            line = self._line_of(job.place)
        info = _info(name, line)
        children = self._iterations(job)
        if children:
            info["childs"] = children
            failed = sum(child["state"] != "SUCCEED" for child in children)
            info["iterations"] = {"total": len(children), "finished": len(children), "failed": failed}
        return info

    def _for_this_thread(self) -> Report:
        """Return this report; while this thread reads it already, one that reads the file for itself.

        That is so in a signal handler and in a finalizer. Whoever it has interrupted has read a part of what is new,
        and goes on with that afterwards.
        """
        if not self._lock._is_owned():  # type: ignore[attr-defined]  # as Condition does
            return self
        return Report(self.path, self._resumed_at, interrupted=self._counts_interrupted)

    def _job(self, name: str) -> _Job:
        """Return where the lines of the last submission of a job are."""
        places = ((number, self._place(f"{name}:{number}")) for number in self._numbers.get(name, ()))
        return _Job(self._place(name), {number: place for number, place in places if place is not None})

    def _place(self, name: str) -> Optional[_Place]:
        return self._places.get(name) or self._interruptions.get(name)

    def _iterations(self, job: _Job) -> List[Dict[str, Any]]:
        children = []
        for number in sorted(job.iterations):
            line = self._line_of(job.iterations[number])
            child = {key: line[key] for key in ("state", "runtime", "history")}
            child["iteration"] = number
            if "messages" in line:
                child["messages"] = line["messages"]
            children.append(child)
        return children

    def _line(self, name: str, *, only_ends: bool = False) -> Dict[str, Any]:
        with self._lock:
            try:
                file = self.path.open("rb")
            except FileNotFoundError:
                return {}  # nothing has ended yet
            with file:
                self._index(file)
                place = self._places.get(name) or (None if only_ends else self._interruptions.get(name))
                return self._line_at(file, *place) if place else {}

    def _line_of(self, place: _Place) -> Dict[str, Any]:
        with self.path.open("rb") as file:
            return self._line_at(file, *place)

    @staticmethod
    def _line_at(file: IO[bytes], start: int, length: int) -> Dict[str, Any]:
        file.seek(start)
        return dict(json.loads(file.read(length)))

    def _index(self, file: IO[bytes]) -> None:
        file.seek(self._read)
        for line in file:
            if not line.endswith(b"\n"):
                return  # torn: the manager is writing it, or was when it ended
            entry = json.loads(line)
            counts = self._counts_interrupted and self._read >= self._resumed_at
            is_end = counts or INTERRUPTED not in entry["runtime"]
            self._note_submission(entry)
            self._note_place(self._places if is_end else self._interruptions, entry["name"], len(line))
            self._read += len(line)

    def _note_submission(self, entry: Dict[str, Any]) -> None:
        """Put aside what is known of a job when a line is about a later one of its name.

        Lines up to release 0.15 have no numbers; there nothing follows the end of a job but a later one.
        """
        job = entry["name"].partition(":")[0]
        last = self._submissions.get(job, 1)
        number = entry.get(SUBMISSION) or (last + 1 if job in self._places else last)
        if number > last:
            self._earlier[job, last] = self._job(job)
            for name in (job, *(f"{job}:{iteration}" for iteration in self._numbers.pop(job, ()))):
                self._places.pop(name, None)
                self._interruptions.pop(name, None)
            self._submissions[job] = number

    def _note_place(self, places: Dict[str, _Place], name: str, length: int) -> None:
        places[name] = (self._read, length)
        job, colon, number = name.partition(":")
        if colon:
            self._numbers.setdefault(job, set()).add(int(number))


class Ends:
    """Reads which jobs and iterations end from now on, one by one, and keeps none. One thread at a time may ask."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = path.stat().st_size if path.exists() else 0

    def next(self) -> Optional[Tuple[str, str]]:
        """Return the name and the state of the next that is on record; None when there is none yet."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return None
        with file:
            file.seek(self._read)
            line = file.readline()
        if not line.endswith(b"\n"):
            return None  # the manager is writing it
        self._read += len(line)
        entry = json.loads(line)
        return entry["name"], entry["state"]


def _info(name: str, line: Dict[str, Any]) -> JobInfo:
    info: JobInfo = {"jobName": name, "status": line["state"], "runtime": line.get("runtime", {})}
    info["history"] = "\n".join(f"{moment_of(entry)}: {entry['state']}" for entry in line["history"])
    if "messages" in line:
        info["messages"] = line["messages"]
    return info
