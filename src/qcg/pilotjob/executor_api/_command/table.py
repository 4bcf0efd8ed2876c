"""Tell how the jobs of a study have ended: a file for programs, a line for people."""

from __future__ import annotations

import csv
from collections import Counter
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, Dict, List, Sequence

from qcg.pilotjob.executor_api._record.live import rows_of
from qcg.pilotjob.executor_api._shared.texts import code_text, printable
from qcg.pilotjob.executor_api.errors import JobFailed, QCGPJError
from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture

__all__ = ["COLUMNS", "ended", "summary", "write"]

COLUMNS = ("state", "exit_code", "seconds", "started", "ended", "message")


def ended(rows: Dict[str, Dict[str, Any]], futures: Sequence[QCGPJFuture]) -> List[Dict[str, Any]]:
    """Return for each row how its jobs have ended, beside its parameters; the state of several is that of the worst."""
    return [{**row, **_end_of(future)} for row, future in zip(rows.values(), futures)]


def _end_of(future: QCGPJFuture) -> Dict[str, Any]:
    end: Dict[str, Any] = dict.fromkeys(COLUMNS, "")
    if not future.done():
        return {**end, "state": "UNFINISHED"}
    try:
        future.raise_for_status(0)
    except CancelledError:
        return {**end, "state": "CANCELED"}
    except JobFailed as failure:
        tail = [] if failure.may_be_others else failure.stderr_tail.splitlines()
        end.update(
            state=failure.status,
            exit_code=failure.exit_code,
            message=printable(failure.message or "".join(tail[-1:]) or _by_signal(failure)),
        )
    except QCGPJError as error:
        return {**end, "state": type(error).__name__, "message": str(error).partition("\n")[0]}
    else:
        end.update(state="SUCCEED", exit_code=0)
    return {**end, **_times_of(future)}


def _by_signal(failure: JobFailed) -> str:
    return code_text(failure.exit_code, failure.signal) if failure.signal else ""


def _times_of(future: QCGPJFuture) -> Dict[str, Any]:
    rows = [row for _, row in rows_of(future.info(), "")]
    starts = [row["started"] for row in rows if row["started"]]
    ends = [row["ended"] for row in rows if row["ended"]]
    if not starts or not ends:
        return {}  # it was cancelled, or omitted, before it could start
    first, last = min(starts), max(ends)
    return {"started": str(first), "ended": str(last), "seconds": round((last - first).total_seconds(), 3)}


def write(path: Path, table: Sequence[Dict[str, Any]]) -> None:
    """Write the table as CSV."""
    names = list(dict.fromkeys(name for row in table for name in row if name not in COLUMNS))
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:  # a --set may be no text
        writer = csv.DictWriter(file, [*names, *COLUMNS])
        writer.writeheader()
        writer.writerows(table)


def summary(table: Sequence[Dict[str, Any]]) -> str:
    """Return a line with the number of jobs in each state."""
    states = Counter(row["state"] for row in table)
    return f"{len(table)} jobs: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
