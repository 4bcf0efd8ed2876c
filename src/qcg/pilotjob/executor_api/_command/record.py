"""The options of ``qcg-pm-record``, and what is done with them."""

# No annotations from the future: typer reads them, and with Python 3.9 it cannot read those.

import sys
import warnings
from enum import Enum
from pathlib import Path
from typing import List, Optional, Set

from typing_extensions import Annotated

from qcg.pilotjob.executor_api._command.program import run_app, typer
from qcg.pilotjob.executor_api._command.rows import print_csv, print_jsonl, print_table
from qcg.pilotjob.executor_api._record.rows import UNFINISHED
from qcg.pilotjob.executor_api.errors import InvalidOption
from qcg.pilotjob.executor_api.run_record import RunRecord

__all__ = ["app", "main"]

app = typer.Typer(add_completion=False)

_STATES = ("SUCCEED", "FAILED", "CANCELED", "OMITTED", UNFINISHED)


class Rows(str, Enum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"


_PRINTERS = {Rows.TABLE: print_table, Rows.CSV: print_csv, Rows.JSONL: print_jsonl}


@app.command()
def record(  # noqa: PLR0917  # typer makes options of them
    directories: Annotated[
        Optional[List[Path]],
        typer.Argument(help="Where jobs ran, or directories of managers; by default where you are."),
    ] = None,
    rows: Annotated[
        Optional[Rows], typer.Option(help="Print a row for each job and iteration; csv and jsonl have all columns.")
    ] = None,
    state: Annotated[
        Optional[str], typer.Option(metavar="STATE,...", help="Print the rows of jobs in these states only.")
    ] = None,
    slowest: Annotated[int, typer.Option(metavar="N", help="How many of the slowest jobs the summary has.")] = 5,
    timeline: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="Draw the cores over time: .html to zoom in, .png, .svg, .pdf."),
    ] = None,
    utilisation: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Draw how many cores were in use; the same kinds of files.")
    ] = None,
) -> None:
    """Tell what has become of the jobs of a run, or of several: a summary, rows, pictures; also while it goes on.

    The exit code is 0 also when jobs have failed.
    """
    wanted = _states(state) if state is not None else None
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always", UserWarning)
        found = RunRecord.of(*(directories or [Path()]))
    for remark in remarks:
        print(remark.message, file=sys.stderr)
    summary = found.summary(slowest)
    if timeline is not None:
        found.timeline(timeline)
    if utilisation is not None:
        found.utilisation(utilisation)
    if rows is None and wanted is None:
        print(summary)
    else:
        _PRINTERS[rows or Rows.TABLE]([row for row in found if wanted is None or row["state"] in wanted])


def _states(given: str) -> Set[str]:
    states = [state.strip().upper() for state in given.split(",")]
    for state in states:
        if state not in _STATES:
            raise InvalidOption(f"--state {given!r}: give {', '.join(_STATES[:-1])} or {_STATES[-1]}")
    return set(states)


def main() -> None:
    """Run the command, and end the program with its exit code."""
    run_app(app, ImportError, OSError)
