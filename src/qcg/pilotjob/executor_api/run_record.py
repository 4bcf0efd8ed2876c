"""The record of a run, or of several: a row for each job, a summary, pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Union

from qcg.pilotjob.executor_api._record.rows import RunRow
from qcg.pilotjob.executor_api._record.runs import Run, drop_what_ran_elsewhere, find_reports, read_run, tell_of_others
from qcg.pilotjob.executor_api._record.summary import RunFailure, RunSummary, summarize
from qcg.pilotjob.executor_api._shared.texts import visible
from qcg.pilotjob.executor_api._shared.times import now
from qcg.pilotjob.executor_api.errors import InvalidOption

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._record.timelines import Moments

__all__ = ["RunFailure", "RunRecord", "RunRow", "RunSummary"]

_Path = Union[str, "os.PathLike[str]"]


class RunRecord:
    """Holds what has become of the jobs of a run, or of several, as it was when the record was taken.

    Made by ``QCGPJExecutor.record()`` or ``RunRecord.of()``. It has a row for each job, and for an array one for each
    iteration, none for the whole. What was interrupted and ran again, in the resumed run or in another one of the same
    working directory, has the row of its last end; the others are `interruptions`.

    Attributes:
        rows: run by run; within each first what has ended, in the order of the ends.
        interruptions: the rows of what was interrupted and was run again; they count as wasted in `summary`.
        replaced: the rows of jobs that were removed and whose names were used again, as for failed ones that ran again;
            `rows` has the last job of each name.
        runs: the directories of the managers.
        taken: when, in local time with its zone.
    """

    def __init__(self, runs: List[Run]) -> None:
        drop_what_ran_elsewhere(runs)
        self.taken = now()
        self.runs = [run.directory for run in runs]
        self.rows: List[RunRow] = [row for run in runs for row in run.rows]
        self.interruptions: List[RunRow] = [row for run in runs for row in run.interruptions]
        self.replaced: List[RunRow] = [row for run in runs for row in run.replaced]
        self._runs = runs

    @classmethod
    def of(cls, *places: _Path) -> RunRecord:
        """Return the record of the runs in `places`, also while they go on.

        In a `wd` where others work too these are your own. A run of somebody else, who has opened its directory for
        you, is read when you name it, or when there is none of your own; a ``UserWarning`` tells whose it is.

        Args:
            places: each the directory of a manager, ``<wd>/.qcgpjm-service-<id>``; or a `wd` with any number of them;
                or the file of a report, also one of the bare core or of this package up to 0.14.2.

        Raises:
            InvalidOption: (a ``ValueError``) there is no place, or no run in one of them, or a report is not in JSON;
                or a directory is closed to you, or has runs of several other users.
            OSError: a file cannot be read.
        """
        if not places:
            raise InvalidOption("RunRecord.of() takes a directory, or several")
        reports = dict.fromkeys(report for place in places for report in find_reports(place))
        tell_of_others(reports)
        return cls([read_run(report) for report in reports])

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[RunRow]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"<RunRecord: {len(self.rows)} jobs of {len(self._runs)} runs>"

    def frame(self) -> Any:
        """Return `rows` as a ``pandas.DataFrame``, with the columns of `RunRow`, also when there are none.

        Times are ``datetime64`` in UTC, `iteration` and `exit_code` are ``Int64``, with missing values.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("frame() needs pandas: pip install pandas") from error
        frame = pandas.DataFrame(map(_visible_paths, self.rows), columns=list(RunRow.__annotations__))
        for name in ("submitted", "started", "ended"):
            frame[name] = pandas.to_datetime(frame[name], utc=True)
        kinds = {"iteration": "Int64", "exit_code": "Int64", "seconds": "float64", "core_seconds": "float64"}
        return frame.astype(kinds)

    def summary(self, slowest: int = 5) -> RunSummary:
        """Return what the record comes to, with the `slowest` jobs.

        Raises:
            InvalidOption: (a ``ValueError``) `slowest` is negative.
        """
        if slowest < 0:
            raise InvalidOption(f"slowest is {slowest!r}; give the number of rows, 0 for none")
        return summarize(self.rows, [*self.interruptions, *self.replaced], self._runs, self.taken, slowest)

    def timeline(self, path: _Path, title: Optional[str] = None) -> Path:
        """Draw a lane for each core and a bar for each job on the cores that it had, and return the picture's path.

        Failed, cancelled and interrupted jobs have colours and hatches of their own, and are never too narrow to be
        seen. The ground of a lane is grey while a manager had the core, so what stays grey was idle. A picture has 250
        lanes at the most: the ones with bars before idle ones.

        Args:
            path: of the picture: ``.png``, ``.svg`` or ``.pdf``; or ``.html`` for a page that needs nothing else, with
                the same picture, a zoom along time, and for each bar what is on record of it, failures with the last
                line of their standard error.
            title: of the picture; by default the directory of the first run.

        Raises:
            InvalidOption: (a ``ValueError``) `path` ends with something else.
            ImportError: matplotlib is not installed; it comes with the extra ``pictures``.
            OSError: the picture cannot be written.
        """
        from qcg.pilotjob.executor_api._record.drawing import draw_timeline

        return draw_timeline(Path(path), self._moments(title))

    def utilisation(self, path: _Path, title: Optional[str] = None) -> Path:
        """Draw how many cores were in use over time, and how many there were, and return the picture's path.

        Arguments and errors are those of `timeline`. How many there were is told by the manager's log; without it that
        line is missing.
        """
        from qcg.pilotjob.executor_api._record.drawing import draw_utilisation

        return draw_utilisation(Path(path), self._moments(title))

    def _moments(self, title: Optional[str]) -> Moments:
        from qcg.pilotjob.executor_api._record.timelines import Moments

        return Moments(self._runs, self.taken, self._title() if title is None else title)

    def _title(self) -> str:
        more = f" and {len(self.runs) - 1} more" if len(self.runs) > 1 else ""
        return f"{self.runs[0]}{more}" if self.runs else ""


def _visible_paths(row: RunRow) -> Dict[str, Any]:
    """Return a row with paths that are text: pandas takes no surrogates, which stand for bytes in a file's name."""
    return {name: visible(value) if isinstance(value, str) else value for name, value in row.items()}
