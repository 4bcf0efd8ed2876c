"""Several runs in one record: what one has left and another one has run must not count twice."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Dict, List, Optional, Sequence, Tuple

from qcg.pilotjob.executor_api._record.rows import UNFINISHED, RunRow, Task, task_of
from qcg.pilotjob.executor_api._record.runs import Run

__all__ = ["drop_what_ran_elsewhere"]

_Key = Tuple[str, Task]


def drop_what_ran_elsewhere(runs: Sequence[Run]) -> None:
    """Take out of each run what was interrupted, or lost, there and has ended later in another run of the same `wd`.

    So it is when jobs of one executor are spread over allocations, and when a program is simply started again.
    """
    if len(runs) < 2:
        return
    ends: Dict[_Key, Tuple[datetime, Run]] = {}
    for run in runs:
        for row in run.rows:
            key = _key(run, row)
            if row["ended"] and not row["interrupted"] and (key not in ends or ends[key][0] < row["ended"]):
                ends[key] = row["ended"], run
    for run in runs:
        kept: List[RunRow] = []
        for row in run.rows:
            left = _left_at(run, row)
            ended, where = ends.get(_key(run, row), (left, run))
            if left is None or where is run or not ended or ended <= left:
                kept.append(row)
            elif row["interrupted"]:
                run.interruptions.append(row)
        run.rows = kept


def _key(run: Run, row: RunRow) -> _Key:
    return os.path.dirname(run.directory), task_of(row)


def _left_at(run: Run, row: RunRow) -> Optional[datetime]:
    """Return when the job was left to others, None when it was not."""
    if row["interrupted"]:
        return row["ended"] or run.last_request
    return run.last_request if row["state"] == UNFINISHED and not run.lives else None
