"""The parameters of a study: a row for each job, from a file or a grid."""

from __future__ import annotations

import csv
import itertools
import json
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence

from qcg.pilotjob.executor_api.errors import InvalidOption

__all__ = ["crossed", "grid", "read_rows"]

_MOST_POINTS = 10_000_000


def read_rows(path: Path) -> List[Dict[str, Any]]:
    """Return the rows of a file: CSV with a header, or JSON lines.

    Values of CSV stay the text that they are; in a template a placeholder outside quotes makes a number of it.

    Raises:
        InvalidOption: the file cannot be read, or a row is wrong; the message has its line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix in (".jsonl", ".ndjson", ".json"):
                return list(_json_lines(path, file.read().splitlines()))
            return list(_csv_rows(path, csv.DictReader(file)))
    except OSError as error:
        raise InvalidOption(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidOption(f"{path}: {error}") from error


def _json_lines(path: Path, lines: Sequence[str]) -> Iterator[Dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidOption(f"{path}, line {number}: {error}; each line is one JSON object") from error
        if not isinstance(row, dict):
            raise InvalidOption(f'{path}, line {number}: {line.strip()[:50]} is no JSON object; write {{"T": 0.7}}')
        yield row


def _csv_rows(path: Path, reader: "csv.DictReader[str]") -> Iterator[Dict[str, Any]]:
    for row in reader:
        if None in row or None in row.values():
            raise InvalidOption(
                f"{path}, line {reader.line_num}: the row has not as many values as the first line has names "
                f"({', '.join(reader.fieldnames or ())})"
            )
        yield dict(row)


def grid(axes: Sequence[str]) -> List[Dict[str, Any]]:
    """Return all combinations of axes like ``T=0.7:1.5:0.1`` (its end included) or ``model=lj,morse``.

    Values are text, exact in the decimals that were written.

    Raises:
        InvalidOption: an axis has no meaning.
    """
    named = [_axis(axis) for axis in axes]
    names = [name for name, _ in named]
    if len(set(names)) < len(names):
        raise InvalidOption(f"--grid names a parameter twice: {', '.join(names)}")
    return [dict(zip(names, values)) for values in itertools.product(*(values for _, values in named))]


def _axis(text: str) -> "tuple[str, List[str]]":
    name, equals, values = text.partition("=")
    if not equals or not name.isidentifier() or not values:
        raise InvalidOption(f"--grid {text!r}: write NAME=FIRST:LAST:STEP or NAME=VALUE,VALUE,...")
    if ":" not in values:
        return name, values.split(",")
    try:
        first, last, step = map(Decimal, values.split(":"))
    except (ValueError, InvalidOperation):
        raise InvalidOption(f"--grid {text!r}: write numbers, NAME=FIRST:LAST:STEP, like T=0.7:1.5:0.1") from None
    if not all(number.is_finite() for number in (first, last, step)) or step == 0 or (last - first) / step < 0:
        raise InvalidOption(f"--grid {text!r}: the step does not lead from {first} to {last}")
    count = int((last - first) / step) + 1
    if count > _MOST_POINTS:
        raise InvalidOption(f"--grid {text!r}: that is {count} values")
    return name, [str(first + number * step) for number in range(count)]


def crossed(rows: Sequence[Dict[str, Any]], points: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return each row with each point of a grid."""
    return [{**row, **point} for row in rows for point in points]
