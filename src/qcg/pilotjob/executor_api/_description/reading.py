"""Text of a template, without its placeholders, read as JSON or a Python literal; where it is neither, the place."""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
from typing import TYPE_CHECKING, Any, ClassVar, Dict, List, Tuple

from qcg.pilotjob.executor_api.errors import TemplateError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Lines", "error_at", "instead_of", "parsed", "place_of", "text_of"]

_NUMBERS = frozenset({"numCores", "numNodes", "ranks", "gpus", "start", "stop", "exact", "min", "max"})
_VARIABLE = re.compile(r"([A-Za-z_]\w*)=(\S*)", re.ASCII)


def instead_of(name: str, text: str, key: Any) -> str:
    """Return what to write for the parameter `name`, which fills the description's `key`, in the place of `text`.

    Nothing where the description takes text, or `key` is not known.
    """
    if key == "args":
        return f"write a list: {name}={_split(text)!r}"
    if key in ("after", "modules", "values"):
        return f"write a list: {name}={[text]!r}"
    if key == "env":
        variables = dict(_VARIABLE.findall(text)) or {"NAME": "value"}
        return f"write a dictionary: {name}={variables!r}"
    if key in _NUMBERS:
        return f"write a number, like {name}=2"
    if key == "login":
        return f"write {name}=True or {name}=False"
    return ""


def _split(text: str) -> List[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote that is not closed is the text's own
        return text.split()


def place_of(text: str, offset: int) -> Tuple[int, int]:
    """Return line and column of a character, both counted from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def error_at(text: str, offset: int, problem: str) -> TemplateError:
    """Return an error that names the place of `offset` in `text`."""
    line, column = place_of(text, offset)
    return TemplateError(f"line {line}, column {column} of the template: {problem}", problem, line, column)


def text_of(path: Path) -> str:
    """Return the text in a file.

    Raises:
        OSError: it cannot be read.
        TemplateError: with its place, for what is no UTF-8; it is larger than any template.
    """
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise TemplateError(f"there are more than {_MOST_BYTES // 2**20} MiB; a template has far fewer")
    try:
        return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode(errors="replace")
        problem = f"this is no UTF-8 ({error.reason}); save the file in that encoding"
        raise error_at(before, len(before), problem) from error


_MOST_BYTES = 64 * 2**20


class Lines:
    """The lines of a text as the Python parser counts them."""

    _END = re.compile(r"\r\n|\r|\n")

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts = [0, *(match.end() for match in self._END.finditer(text)), len(text)]

    def offset(self, line: int, column: int) -> int:
        """Return where the character `column` of a line is, both counted from 1."""
        return self._starts[min(line, len(self._starts)) - 1] + max(column, 1) - 1

    def offset_of(self, node: ast.expr) -> int:
        """Return where a node begins; the parser counts bytes."""
        start = self._starts[node.lineno - 1]
        line = self._text[start : self._starts[node.lineno]]
        return start + len(line.encode()[: node.col_offset].decode())


def parsed(source: str) -> Any:
    """Read `source` as JSON or, failing that, as a Python literal in which true, false and null are known too."""
    stripped = source.strip()
    try:
        return json.loads(stripped)
    except json.JSONDecodeError as error:
        json_reason = error.msg, error.pos  # not the error: it would hold this frame, and so all that called
    except (ValueError, RecursionError) as error:
        json_reason = str(error), 0
    try:
        tree = ast.fix_missing_locations(_JSONNames(stripped).visit(ast.parse(stripped, mode="eval")))
        return ast.literal_eval(tree)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        python_reason = _reason(error), _offset_of(error, stripped)
    raise _unreadable(source, json_reason, python_reason)


_MARK_SOURCE = re.compile(r'"?\\ud800[0-9$]*\\ud801"?')


def _unreadable(source: str, json_reason: Tuple[str, int], python_reason: Tuple[str, int]) -> TemplateError:
    """Return the error for what neither of the two can read, at the place of the one that it was written for."""
    begin = len(source) - len(source.lstrip())
    offset = begin + _likely(source[begin:], json_reason[1], python_reason[1])
    offset = min(offset, len(source.rstrip()))
    readable = _MARK_SOURCE.sub("${...}", source)
    offset = len(_MARK_SOURCE.sub("${...}", source[:offset]))
    problem = f"this is neither JSON ({json_reason[0]}) nor a Python literal ({python_reason[0]})"
    hint = "; a placeholder for text needs quotes around it: '${name}'" if readable != source else ""
    return error_at(readable, offset, f"{problem}: {_line_of(readable, offset)!r}{hint}")


def _likely(source: str, by_json: int, by_python: int) -> int:
    """Return the likelier place: that of the reader that came further.

    On one line it is JSON's, unless JSON stopped at what only Python knows: Python takes ``"a" "b"`` for one text, and
    so sees later that something is missing between the two.
    """
    begins_json = source[by_json : by_json + 1] in '"{[:0123456789'
    if begins_json and "\n" not in source[by_json:by_python]:
        return by_json
    return max(by_json, by_python)


def _line_of(text: str, offset: int) -> str:
    line = (text[text.rfind("\n", 0, offset) + 1 :]).partition("\n")[0].strip()
    return line if len(line) <= 200 else f"{line[:200]}..."


def _offset_of(error: BaseException, source: str) -> int:
    """Return how far into `source` an error of the Python parser is."""
    line, column = getattr(error, "lineno", None), getattr(error, "offset", None)
    return Lines(source).offset(line, column or 1) if line else 0


def _reason(error: BaseException) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__


class _JSONNames(ast.NodeTransformer):
    """Gives JSON's names their values inside a Python literal."""

    _VALUES: ClassVar[Dict[str, Any]] = {
        "true": True,
        "false": False,
        "null": None,
        "NaN": float("nan"),
        "Infinity": float("inf"),
    }
    _LITERALS = (ast.Constant, ast.Dict, ast.List, ast.Tuple, ast.Set, ast.UnaryOp)

    def __init__(self, source: str) -> None:
        self._lines = Lines(source)

    def _error(self, node: ast.expr, problem: str) -> SyntaxError:
        column = self._lines.offset_of(node) - self._lines.offset(node.lineno, 1) + 1
        return SyntaxError(problem, ("", node.lineno, column, ""))

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.expr) and not isinstance(node, self._LITERALS):
            raise self._error(node, "this is no literal")
        return super().generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id not in self._VALUES:
            raise self._error(node, f"{node.id!r} stands there without quotes")
        return ast.copy_location(ast.Constant(self._VALUES[node.id]), node)
