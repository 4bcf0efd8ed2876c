"""What the manager has put on record of the jobs that have ended: its file ``jobs.report``."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import IO, Any, Dict, List, Optional, Set, Tuple

from qcg.pilotjob.executor_api._client.wire import INTERRUPTED
from qcg.pilotjob.executor_api.jobs import JobInfo

__all__ = ["Report"]


class Report:
    """Reads the report, each line once, and keeps where a job's line stands. Any thread may ask.

    Of the part before `resumed_at`, in bytes, which is older than the manager, what bears the mark of an interruption
    does not count as an end: it runs again. Where another allocation may follow, no `interrupted` end counts. Of a job
    of which somebody else has told that this was its end, it is known all the same how it came.
    """

    def __init__(self, path: Path, resumed_at: int = 0, *, interrupted: bool = True) -> None:
        self.path = path
        self._counts_interrupted = interrupted
        self._resumed_at = resumed_at
        self._lock = threading.Lock()
        self._read = 0
        self._places: Dict[str, Tuple[int, int]] = {}
        self._interruptions: Dict[str, Tuple[int, int]] = {}
        self._numbers: Dict[str, Set[int]] = {}

    def state(self, name: str) -> str:
        """Return the state in which a job or iteration has ended, an empty string when it is not on record."""
        line = self._line(name, only_ends=True)
        return str(line["state"]) if line else ""

    def info(self, name: str) -> Optional[JobInfo]:
        """Return what is on record of a job, in the form of the manager's ``jobInfo``; None when nothing is."""
        line = self._line(name)
        if not line:
            return None
        info = _info(name, line)
        children = self._iterations(name)
        if children:
            info["childs"] = children
            failed = sum(child["state"] != "SUCCEED" for child in children)
            info["iterations"] = {"total": len(children), "finished": len(children), "failed": failed}
        return info

    def _iterations(self, name: str) -> List[Dict[str, Any]]:
        children = []
        for number in sorted(self._numbers.get(name, ())):
            line = self._line(f"{name}:{number}")
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
            self._note_place(self._places if is_end else self._interruptions, entry["name"], len(line))
            self._read += len(line)

    def _note_place(self, places: Dict[str, Tuple[int, int]], name: str, length: int) -> None:
        places[name] = (self._read, length)
        job, colon, number = name.partition(":")
        if colon:
            self._numbers.setdefault(job, set()).add(int(number))


def _info(name: str, line: Dict[str, Any]) -> JobInfo:
    info: JobInfo = {"jobName": name, "status": line["state"], "runtime": line.get("runtime", {})}
    info["history"] = "\n".join(f"{entry['date'].replace('T', ' ')}: {entry['state']}" for entry in line["history"])
    if "messages" in line:
        info["messages"] = line["messages"]
    return info
