"""Keep the parameters that the jobs of a run were submitted with, in a file of the manager's directory.

The manager knows its jobs by name alone. A table that was changed between two runs has other parameters under the same
names, so a run is resumed by what is in this file, and rows that do not agree with it are refused.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Set

from qcg.pilotjob.executor_api._record.rows import UNFINISHED
from qcg.pilotjob.executor_api._shared.ownership import read_owned
from qcg.pilotjob.executor_api._shared.run_files import private
from qcg.pilotjob.executor_api.errors import InvalidOption
from qcg.pilotjob.executor_api.run_record import RunRecord

__all__ = ["Submitted", "digest"]

_FILE = "study.jsonl"
_MOST_SHOWN = 3


def digest(text: str, defaults: Mapping[str, Any]) -> str:
    """Return what tells one template from another."""
    return hashlib.sha256(json.dumps([text, defaults], sort_keys=True, default=repr).encode()).hexdigest()


class Submitted:
    """Holds what was submitted for each row of a study, by the row's name; later lines beat earlier ones."""

    def __init__(self, run: Path) -> None:
        """Read the file of the manager's directory `run`, which need not be there."""
        self._path = run / _FILE
        self._rows: Dict[str, Dict[str, Any]] = {}
        for line in self._lines():
            self._rows.setdefault(line["row"], {}).update(line)

    def _lines(self) -> List[Dict[str, Any]]:
        try:
            lines = read_owned(self._path).split(b"\n")[:-1]  # without a last one that is torn
        except FileNotFoundError:
            return []
        return [line for line in map(_parsed, lines) if "row" in line]

    def add(self, row: Mapping[str, Any], template: str) -> None:
        """Keep the parameters that a row is submitted with, and the `digest` of its template."""
        self._write({"row": row["name"], "parameters": row, "template": template})

    def add_names(self, name: str, jobs: Sequence[str]) -> None:
        """Keep the names of a row's jobs, where they are others than the row's own."""
        if list(jobs) != self.jobs_of(name):
            self._write({"row": name, "jobs": list(jobs)})

    def _write(self, line: Dict[str, Any]) -> None:
        with open(self._path, "a+b", opener=private) as file:
            if file.tell() and not _ends_with_a_line(file):
                file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")
        self._rows.setdefault(line["row"], {}).update(line)

    def jobs_of(self, name: str) -> List[str]:
        """Return the names of a row's jobs."""
        return list(self._rows.get(name, {}).get("jobs", [name]))

    def changed(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row was submitted with other parameters, or it is not known with which."""
        before = self._rows.get(row["name"], {}).get("parameters")
        return before is None or _canonical(before) != _canonical(row)

    def remarks(self, rows: Mapping[str, Mapping[str, Any]], template: str, *, retry_failed: bool) -> List[str]:
        """Compare the rows of a table with what was submitted, and return what to say of the differences.

        Raises:
            InvalidOption: jobs that are not to run again had other parameters than the rows of their names have.
        """
        states = _states(self._path.parent)
        kept = [name for name in rows if self._is_kept(name, states, retry_failed=retry_failed)]
        unknown = [name for name in kept if "parameters" not in self._rows.get(name, {})]
        if unknown:
            raise InvalidOption(
                f"the run in {self._path.parent} has jobs that were not submitted by this command, and their "
                f"parameters are not known: {_shown(unknown)}; give --name other names, or --wd another directory"
            )
        other = [name for name in kept if self.changed(rows[name])]
        if other:
            raise InvalidOption(self._difference(other, rows))
        return self._mentions(kept, rows, template)

    def _is_kept(self, name: str, states: Mapping[str, Set[str]], *, retry_failed: bool) -> bool:
        """Return whether the run has jobs of the row that are not submitted anew."""
        of_jobs = set().union(*(states.get(job, set()) for job in self.jobs_of(name)))
        return bool(of_jobs) and (not retry_failed or UNFINISHED in of_jobs or of_jobs <= {"SUCCEED"})

    def _difference(self, names: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> str:
        before, now = self._rows[names[0]]["parameters"], rows[names[0]]
        changed = [
            key for key in {**before, **now} if before.get(key) != now.get(key) or (key in before) != (key in now)
        ]
        values = "; ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed[:_MOST_SHOWN])
        return (
            f"the run in {self._path.parent} has had other parameters for {len(names)} of these jobs: {_shown(names)} "
            f"({names[0]}: {values}); give new rows behind the earlier ones, or --name with parameters so that a name "
            "stands for the same parameters each time, or --wd another directory"
        )

    def _mentions(self, kept: Sequence[str], rows: Mapping[str, Any], template: str) -> List[str]:
        remarks = []
        earlier = [name for name in kept if self._rows[name].get("template") != template]
        if earlier:
            remarks.append(
                f"the template was another one when these jobs were submitted, which is kept: {_shown(earlier)}"
            )
        left_out = [name for name in self._rows if name not in rows]
        if left_out:
            remarks.append(f"jobs of the run that the table has no row for are not in the results: {_shown(left_out)}")
        return remarks


def _states(run: Path) -> Dict[str, Set[str]]:
    """Return the states of a run's jobs; those of an array are the ones of its iterations."""
    states: Dict[str, Set[str]] = {}
    for row in RunRecord.of(run):
        states.setdefault(row["name"], set()).add(UNFINISHED if row["interrupted"] else row["state"])
    return states


def _shown(names: Sequence[str]) -> str:
    more = len(names) - _MOST_SHOWN
    return ", ".join(names[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _canonical(parameters: Mapping[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True)


def _parsed(line: bytes) -> Dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}  # one that was torn, before the next one was written; its row is one that nothing is known of
    return content if isinstance(content, dict) and _is_ours(content) else {}


def _is_ours(line: Dict[str, Any]) -> bool:
    """Return whether the values of a line have the types that `Submitted` gives them."""
    kinds = {"row": str, "parameters": dict, "template": str, "jobs": list}
    return all(isinstance(line[key], kind) for key, kind in kinds.items() if key in line)


def _ends_with_a_line(file: Any) -> bool:
    file.seek(-1, 2)
    return bool(file.read(1) == b"\n")
