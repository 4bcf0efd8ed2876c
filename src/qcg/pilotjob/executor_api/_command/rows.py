"""The rows of a record on standard output: for people, and for programs."""

from __future__ import annotations

import csv
import json
import os
import sys
from datetime import datetime
from typing import Any, Dict, List, Sequence

from qcg.pilotjob.executor_api._record.rows import RunRow
from qcg.pilotjob.executor_api._record.summary import RunFailure, label
from qcg.pilotjob.executor_api._shared.exit_codes import code_text
from qcg.pilotjob.executor_api._shared.spelling import visible

__all__ = ["print_csv", "print_jsonl", "print_table"]

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
