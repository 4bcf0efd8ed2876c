"""The text of a template: cut at its placeholders, read as JSON or a Python literal.

In the structure that is read, marks stand where the placeholders stood: ``<OPEN>number<CLOSE>`` for a value,
``<OPEN>name<CLOSE>`` for a variable of the manager, ``<OPEN>$<CLOSE>`` for the character itself.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, List, Mapping, Optional, Tuple, Union

from qcg.pilotjob.executor_api.errors import TemplateError

__all__ = ["CLOSE", "MARK", "OPEN", "VARIABLES", "Hole", "Piece", "Template", "compiled", "without_marks"]

_AT_START = ("root_wd", "ncores", "nnodes", "nlist", "it", "itval")
_ON_ARRIVAL = ("rcnt", "uniq", "sname", "date", "time", "dateTime", "jname")
VARIABLES = frozenset({*_AT_START, *_ON_ARRIVAL})

# Marks are lone surrogates: they cannot stand in text that a process can be given, so no value can contain one.
OPEN, CLOSE = "\ud800", "\ud801"
MARK = re.compile(f"{OPEN}([^{OPEN}{CLOSE}]*){CLOSE}")

_NAME = "[_a-zA-Z][_a-zA-Z0-9]*"
_PLACEHOLDER = re.compile(
    rf"\$(?:\$\{{(?P<variable>{'|'.join(sorted(VARIABLES))})\}}"
    rf"|(?P<dollar>\$)|(?P<named>{_NAME})|\{{(?P<braced>{_NAME})\}}|(?P<wrong>\{{)|)"
)


@dataclass(frozen=True)
class Hole:
    """A placeholder: its name, whether it had braces, and whether it stands inside quotes."""

    name: str
    braced: bool
    quoted: bool


class Piece(str):
    """A str value for a placeholder outside quotes: a piece of the template's text."""

    __slots__ = ()


@dataclass(frozen=True)
class Template:
    """A template's text cut at its placeholders: `pieces` has text and the numbers of `holes` in turn."""

    pieces: Tuple[Union[str, int], ...]
    holes: Tuple[Hole, ...]
    structure: Any = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def with_text(self, filling: List[Any]) -> Any:
        """Return the structure of the text with pieces of text in its holes."""
        structure = _parsed(self.source(filling))
        if _take_defaults(structure) and self.structure is None:
            raise TemplateError("the template's 'defaults' cannot be read before its other parameters are filled in")
        return structure

    def source(self, filling: Optional[List[Any]] = None) -> str:
        """Return the text with marks in its holes; values that are pieces of the text go in as they are."""
        parts = []
        for piece in self.pieces:
            if isinstance(piece, str):
                parts.append(piece)
            elif filling is not None and isinstance(filling[piece], Piece):
                parts.append(filling[piece])
            else:
                mark = f"\\ud800{piece}\\ud801"
                parts.append(mark if self.holes[piece].quoted else f'"{mark}"')
        return "".join(parts)


def compiled(text: str) -> Template:
    template = _cut(without_marks(text))
    structure = None
    try:
        structure = _parsed(template.source())
    except TemplateError:
        if all(hole.quoted for hole in template.holes):
            raise  # no value can mend it; otherwise a str outside quotes may bring what is missing
    defaults = _take_defaults(structure)
    if MARK.search(json.dumps(defaults, ensure_ascii=False)):
        raise TemplateError("the template's 'defaults' contain a placeholder; write plain values there")
    return Template(template.pieces, template.holes, structure, defaults)


def _take_defaults(structure: Any) -> Dict[str, Any]:
    if isinstance(structure, dict) and "execution" in structure and isinstance(structure.get("defaults"), dict):
        return dict(structure.pop("defaults"))
    return {}


def _cut(text: str) -> Template:
    pieces: List[Union[str, int]] = []
    holes: List[Hole] = []
    quotes = _Quotes()
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        before = text[end : match.start()]
        pieces.append(before)
        quotes.read(before)
        end = match.end()
        if quotes.comment:
            continue
        if quotes.raw:
            raise TemplateError(f"{match.group()!r} stands in a raw string r'...'; leave the r out")
        name = match["named"] or match["braced"]
        if match["variable"]:
            pieces.append(f"\\ud800{match['variable']}\\ud801")
        elif match["wrong"]:
            line = text.count("\n", 0, match.start()) + 1
            raise TemplateError(
                f"line {line} of the template has '${{' that does not begin a placeholder: "
                f"{text[match.start() : match.start() + 20]!r}; write ${{name}}, or $${{ for the characters themselves"
            )
        elif name is None:
            pieces.append("\\ud800$\\ud801" if quotes.inside else match.group())
        else:
            pieces.append(len(holes))
            holes.append(Hole(name, bool(match["braced"]), quotes.inside))
    pieces.append(text[end:])
    return Template(tuple(pieces), tuple(holes))


def without_marks(text: str) -> str:
    if re.search(r"\\u[dD]80[01](?!\\u[dD][c-fC-F])", text):
        raise TemplateError("the template contains half a surrogate pair, which no process can be given")
    return text


class _Quotes:
    """Follows the text of a JSON or Python literal: is this place inside quotes?"""

    _TOKEN = re.compile(r"\\(?:.|\Z)|'''|\"\"\"|['\"]|#|\n", re.DOTALL)

    def __init__(self) -> None:
        self._quote = ""
        self.comment = False
        self.raw = False

    @property
    def inside(self) -> bool:
        return bool(self._quote)

    def read(self, text: str) -> None:
        for match in self._TOKEN.finditer(text):
            token = match.group()
            if self.comment:
                self.comment = token != "\n"
            elif self._quote:
                if token == "\\":
                    raise TemplateError("a backslash stands before a '$'; write two for the character itself")
                if token in (self._quote, self._quote * 3):
                    self._quote, self.raw = "", False
            elif token[0] in "'\"":
                self._quote = token
                self.raw = text[max(0, match.start() - 1) : match.start()] in ("r", "R")
            elif token == "#":
                self.comment = True


def _parsed(source: str) -> Any:
    """Read `source` as JSON or, failing that, as a Python literal in which true, false and null are known too."""
    source = source.strip()
    try:
        return json.loads(source)
    except ValueError as error:
        json_reason = error.args[0]  # not the error: it would hold this frame, and so all that called
    try:
        tree = ast.fix_missing_locations(_JSONNames().visit(ast.parse(source, mode="eval")))
        return ast.literal_eval(tree)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        readable = _MARK_SOURCE.sub("${...}", source)
        line = getattr(error, "lineno", None)
        place = f"line {line}: {readable.splitlines()[line - 1].strip()!r}" if line else repr(readable[:200])
        raise TemplateError(
            f"the template is neither JSON ({json_reason}) nor a Python literal ({_reason(error)}) at {place}; "
            "a placeholder for text needs quotes around it: '${name}'"
        ) from None


_MARK_SOURCE = re.compile(r'"?\\ud800[0-9$]*\\ud801"?')


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

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id not in self._VALUES:
            raise SyntaxError(f"{node.id!r} stands there without quotes", ("", node.lineno, node.col_offset, ""))
        return ast.copy_location(ast.Constant(self._VALUES[node.id]), node)
