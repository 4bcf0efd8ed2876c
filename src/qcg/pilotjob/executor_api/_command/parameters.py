"""The parameters of a study: a row for each job, from a file or a grid."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import Counter
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from qcg.pilotjob.executor_api._command.table import COLUMNS
from qcg.pilotjob.executor_api.errors import InvalidOption

__all__ = ["combined", "grid", "read_rows", "settings"]

_MOST_POINTS = 10_000_000
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_rows(path: Path) -> List[Dict[str, Any]]:
    """Return the rows of a file: CSV with a header, or JSON lines.

    Values of CSV stay the text that they are; in a template a placeholder outside quotes makes a number of it.

    Raises:
        InvalidOption: the file cannot be read, has no rows, or is not what it seems; the message has the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise InvalidOption(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InvalidOption(
            f"{path}, line {line}: this is no UTF-8; save the file as UTF-8, or convert it: "
            f"iconv -f latin1 -t utf-8 {path}"
        ) from error
    rows = list(_json_lines(path, text) if path.suffix in (".jsonl", ".ndjson", ".json") else _csv_rows(path, text))
    if not rows:
        raise InvalidOption(f"{path}: there are no rows, so there is nothing to run")
    return rows


def _json_lines(path: Path, text: str) -> Iterator[Dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_without_doubles)
        except (ValueError, RecursionError) as error:
            raise InvalidOption(f"{path}, line {number}: {error}; each line is one JSON object") from error
        if not isinstance(row, dict):
            raise InvalidOption(f'{path}, line {number}: {line.strip()[:50]} is no JSON object; write {{"T": 0.7}}')
        _refuse_names(f"{path}, line {number}", list(row))
        yield row


def _without_doubles(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise ValueError(f"{name!r} is there {count} times")
    return dict(pairs)


def _csv_rows(path: Path, text: str) -> Iterator[Dict[str, Any]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: List[str] = []
    begins = 1
    try:
        for values in reader:
            line, begins = begins, reader.line_num + 1
            if not values:
                continue  # a blank line
            if not names:
                names = values
                _refuse_header(path, names)
                continue
            if len(values) != len(names):
                raise InvalidOption(
                    f"{path}, line {line}: the row has {len(values)} values, and the first line {len(names)} names "
                    f"({', '.join(names)})"
                )
            _refuse_swallowed_rows(path, line, values, len(names))
            yield dict(zip(names, values))
    except csv.Error as error:
        raise InvalidOption(f"{path}, line {begins}: {error}; is a quote not closed there?") from error


def _refuse_swallowed_rows(path: Path, line: int, values: Sequence[str], columns: int) -> None:
    """Refuse a value that is rows of the table itself, which a quote has swallowed that is closed in a later row."""
    for value in values:
        swallowed = value.splitlines()[1:]
        if columns > 1 and swallowed and all(part.count(",") == columns - 1 for part in swallowed):
            raise InvalidOption(
                f"{path}, line {line}: a value goes on over {len(swallowed) + 1} lines that look like rows; is a quote "
                "not closed there? If it is meant so, give the parameters as JSON lines (.jsonl)"
            )


def _refuse_header(path: Path, names: Sequence[str]) -> None:
    for separator, called in _SEPARATORS.items():
        if len(names) == 1 and separator in names[0]:
            raise InvalidOption(f"{path}: the columns are separated by {called}; separate them by commas")
    for name, count in Counter(names).items():
        if count > 1:
            raise InvalidOption(f"{path}: {count} columns are named {name!r}; each needs a name of its own")
    _refuse_names(str(path), names)


def _refuse_names(where: str, names: Sequence[str]) -> None:
    """Refuse names that no placeholder can have, or that are those of columns of the results."""
    for name in names:
        if name != name.strip():
            raise InvalidOption(f"{where}: the name {name!r} has blanks around it; write {name.strip()!r}")
        if name in COLUMNS:
            raise InvalidOption(
                f"{where}: {name!r} is a column of the results ({', '.join(COLUMNS)}); give the parameter another name"
            )
        if not name.isidentifier():
            raise InvalidOption(
                f"{where}: the name {name!r} can stand in no placeholder; give each column a name of letters, digits "
                "and '_'"
            )


def settings(fixed: Sequence[str]) -> Dict[str, str]:
    """Return the parameters of ``NAME=VALUE``.

    Raises:
        InvalidOption: one is written differently, or a name is given twice.
    """
    for setting in fixed:
        name, equals, _ = setting.partition("=")
        if not name.isidentifier() or not equals:
            raise InvalidOption(f"--set {setting!r}: write NAME=VALUE")
    names = [setting.partition("=")[0] for setting in fixed]
    if len(set(names)) < len(names):
        raise InvalidOption(f"--set names a parameter twice: {', '.join(names)}")
    _refuse_names("--set", names)
    return dict(setting.split("=", 1) for setting in fixed)


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
    _refuse_names("--grid", names)
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


def combined(
    fixed: Dict[str, Any], rows: Sequence[Dict[str, Any]], points: Sequence[Dict[str, Any]]
) -> List[Dict[str, Any]]:
    """Return each row with each point of a grid, and with what is the same for all.

    Raises:
        InvalidOption: a parameter is given in two ways, and one of its values would have no effect.
    """
    columns = {name for row in rows for name in row}
    for name in [*fixed, *points[0]]:
        ways = [way for way, given in (("a column", columns), ("--set", fixed), ("--grid", points[0])) if name in given]
        if len(ways) > 1:
            raise InvalidOption(f"the parameter {name!r} is given by {' and by '.join(ways)}; give it in one way")
    return [{**fixed, **row, **point} for row in rows for point in points]
