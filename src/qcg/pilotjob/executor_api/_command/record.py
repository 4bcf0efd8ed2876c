"""The options of ``qcg-pm-record``, and what is done with them."""

from __future__ import annotations

import csv
import json
import os
import sys
import warnings
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Set

from typing_extensions import Annotated

from qcg.pilotjob.executor_api._command.program import run_app, typer
from qcg.pilotjob.executor_api._record.rows import UNFINISHED, RunRow
from qcg.pilotjob.executor_api._record.summary import RunFailure, label
from qcg.pilotjob.executor_api._shared.texts import code_text, visible
from qcg.pilotjob.executor_api.errors import InvalidOption
from qcg.pilotjob.executor_api.run_record import RunRecord

__all__ = ["app", "main", "print_csv", "print_jsonl", "print_table"]

_HEAD = ("JOB", "STATE", "EXIT", "STARTED", "SECONDS", "CORES", "NODES", "REASON")


def print_table(rows: Sequence[RunRow]) -> None:
    """Print what people look for, in columns; the run only where there are several."""
    table = [list(_HEAD), *map(_cells, rows)]
    if len({row["run"] for row in rows}) > 1:
        for line, run in zip(table, ["RUN", *(visible(os.path.relpath(row["run"])) for row in rows)]):
            line.insert(-1, run)
    widths = [max(map(len, column)) for column in zip(*table)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def _cells(row: RunRow) -> List[str]:
    started, seconds = row["started"], row["seconds"]
    reason = row["message"] or (RunFailure(row).last_line if row["state"] == "FAILED" else "")
    cells = [
        label(row),
        row["state"],
        code_text(row["exit_code"], row["signal"]).replace("exit code ", "").replace("ended by ", ""),
        f"{started:%Y-%m-%dT%H:%M:%S}" if started else "",
        "" if seconds is None else f"{seconds:.3f}",
        str(row["cores"]),
        ",".join(row["nodes"]),
        " ".join(reason.split()),
    ]
    return [cell or "-" for cell in cells]


def print_csv(rows: Sequence[RunRow]) -> None:
    """Print all columns as CSV, with a header."""
    writer = csv.DictWriter(sys.stdout, list(RunRow.__annotations__), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        placed = {"core_numbers": _by_node(row["core_numbers"]), "gpus": _by_node(row["gpus"])}
        writer.writerow({**_plain(row), "nodes": ",".join(row["nodes"]), **placed})


def _by_node(names: Dict[str, List[str]]) -> str:
    return ",".join(f"{node}[{':'.join(of_node)}]" for node, of_node in names.items())


def print_jsonl(rows: Sequence[RunRow]) -> None:
    """Print all columns as lines of JSON."""
    for row in rows:
        print(json.dumps(_plain(row)))


def _plain(row: RunRow) -> Dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


# No annotations from the future: typer reads them, and with Python 3.9 it cannot read those.


app = typer.Typer(add_completion=False)

_STATES = ("SUCCEED", "FAILED", "CANCELED", "OMITTED", UNFINISHED)


class Rows(str, Enum):
    """Names the ways in which rows are printed."""

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
