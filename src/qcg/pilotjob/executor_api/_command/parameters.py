"""The parameters of a study: a row for each job, from a file or a grid."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import re
import shlex
from collections import Counter
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from qcg.pilotjob.executor_api._command.table import COLUMNS
from qcg.pilotjob.executor_api.errors import InvalidOption

__all__ = ["combined", "grid", "read_rows", "settings"]

_MOST_BYTES = 512 * 2**20
_MOST_POINTS = 10_000_000
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_DECIMAL_COMMA = re.compile(r"[+-]?[\d.]*\d,\d+([eE][+-]?\d+)?")
_MARKS = (  # that of UTF-32 begins with the one of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_rows(path: Path) -> List[Dict[str, Any]]:
    """Return the rows of a file: a table with a header, or JSON lines.

    Values of a table stay the text that they are; in a template a placeholder outside quotes makes a number of it.

    Raises:
        InvalidOption: the file cannot be read, has no rows, or is not what it seems; the message has the line.
    """
    text = _text_of(path)
    rows = list(_json_lines(path, text) if path.suffix in (".jsonl", ".ndjson", ".json") else _csv_rows(path, text))
    if not rows:
        raise InvalidOption(f"{path}: there are no rows, so there is nothing to run")
    return rows


def _text_of(path: Path) -> str:
    """Read a file in UTF-8, or in what its byte order mark says, as programs for spreadsheets write it."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InvalidOption(f"{path}: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise InvalidOption(f"{path}: there are more than {_MOST_BYTES // 2**20} MiB; give several tables")
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, "replace").count("\n") + 1
        found = content[error.start : error.start + 1].hex()
        raise InvalidOption(
            f"{path}, line {line}: byte 0x{found} is no {encoding.upper()}; save the file as UTF-8, or convert it, "
            "say from Latin-1 or Windows-1252: "
            f"iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(str(path))} > new{path.suffix}"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InvalidOption(
            f"{path}, line {line}: there is a NUL character, which no job can be given; if the file is in UTF-16, "
            "save it as UTF-8"
        )
    return text


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
        _refuse_characters(f"{path}, line {number}", row)
        yield row


def _refuse_characters(where: str, row: Dict[str, Any]) -> None:
    for name, value in row.items():
        if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
            raise InvalidOption(f"{where}: {name!r} is {value!r}, with a character that stands for no text")


def _without_doubles(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise ValueError(f"{name!r} is there {count} times")
    return dict(pairs)


def _csv_rows(path: Path, text: str) -> Iterator[Dict[str, Any]]:
    lines = list(io.StringIO(text, newline=""))
    separator, skipped = _separator(path, lines)
    reader = csv.reader(lines[skipped:], delimiter=separator, strict=True)
    names: List[str] = []
    line = skipped + 1
    try:
        for values in reader:
            begins, line = line, reader.line_num + skipped + 1
            if len(values) <= 1 and not "".join(lines[begins - 1 : line - 1]).strip():
                continue  # a blank line
            if not names:
                names = values
                _refuse_header(path, names)
                continue
            row = _Row(f"{path}, line {begins}", lines[begins - 1 : line - 1], separator)
            row.refuse_other_length(values, names)
            row.refuse_swallowed_rows(len(names))
            row.refuse_empty(values)
            row.refuse_decimal_commas(names, values)
            yield dict(zip(names, values))
    except csv.Error as error:
        raise InvalidOption(
            f"{path}, line {line}: {error}; is a quote not closed there? Quotes around a value are closed before the "
            'next separator, and a quote in it is written twice: "5"" pipe"'
        ) from error


def _separator(path: Path, lines: Sequence[str]) -> Tuple[str, int]:
    """Return what separates the columns, and how many lines come before the header.

    No name of a column has a separator in it, so the header tells. Excel's line ``sep=;`` may stand before it.
    """
    number, head = next(((number, line) for number, line in enumerate(lines, 1) if line.strip()), (1, ""))
    told = re.fullmatch(r"sep=(.)\s*", head)
    if told:
        return told[1], number
    found = [separator for separator in _SEPARATORS if separator in head.strip("\r\n")]
    if len(found) > 1:
        raise InvalidOption(
            f"{path}, line {number}: there are {' and '.join(_SEPARATORS[one] for one in found)} between the names of "
            "the columns; separate all of them by commas"
        )
    return (found or [","])[0], 0


class _Row:
    """A row of a table: where it is, its lines as they were written, and what separates its values."""

    def __init__(self, where: str, lines: Sequence[str], separator: str) -> None:
        self._where = where
        self._lines = lines
        self._separator = separator

    def refuse_other_length(self, values: Sequence[str], names: Sequence[str]) -> None:
        if len(values) == len(names):
            return
        comma = self._separator == "," and _DECIMAL_COMMA.search(self._lines[0])
        raise InvalidOption(
            f"{self._where}: the row has {len(values)} values, and the header {len(names)} names ({', '.join(names)})"
            + ("; write numbers with a point, 0.7, not with a comma" if comma else "")
        )

    def refuse_swallowed_rows(self, columns: int) -> None:
        """Refuse a value that goes on over lines that look like rows, as after a quote that a later row has closed."""
        if any(line.count(self._separator) == columns - 1 for line in self._lines[1:]):
            raise InvalidOption(
                f"{self._where}: a value goes on over {len(self._lines)} lines that look like rows; is a quote not "
                "closed there? If it is meant so, give the parameters as JSON lines (.jsonl)"
            )

    def refuse_empty(self, values: Sequence[str]) -> None:
        if len(values) > 1 and not any(value.strip() for value in values):
            raise InvalidOption(f"{self._where}: all values of the row are empty; delete the line")

    def refuse_decimal_commas(self, names: Sequence[str], values: Sequence[str]) -> None:
        """Refuse numbers with a decimal comma, which programs with such a comma write into tables with semicolons."""
        for name, value in zip(names, values):
            if self._separator != "," and not name.startswith("_") and _DECIMAL_COMMA.fullmatch(value.strip()):
                raise InvalidOption(
                    f"{self._where}: {name} is {value!r}, a number with a decimal comma; write it with a point. "
                    "If it is meant as text, give the parameters as JSON lines (.jsonl)"
                )


def _refuse_header(path: Path, names: Sequence[str]) -> None:
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
