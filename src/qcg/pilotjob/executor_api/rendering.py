"""From a template and its parameters to job descriptions, with every value kept whole.

A template is text with ``string.Template`` placeholders around JSON or a Python literal. Values are not pasted into
that text: each placeholder becomes a mark, the text is parsed once, and the marks in the parsed structure are then
replaced by the values. So no value can end a string, add a key or lose a character. (The one exception is asked for
by the contract: a str whose placeholder stands outside quotes is a piece of the text, like ``args='["-v"]'``.)

The manager itself replaces variables in descriptions, twice: on arrival and, in ``execution``, at the start of the
job. Its documented braced variables pass through when no parameter has their name; those of the arrival are given
their values here, because several submissions travel in one request. Every other ``$`` is doubled for each time that
the manager will look at it, and so arrives as it was written.
"""

from __future__ import annotations

import ast
import itertools
import json
import numbers
import os
import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional, Tuple, Union

from qcg.pilotjob.executor_api.errors import MissingParameter, TemplateError
from qcg.pilotjob.executor_api.jobs import Job

__all__ = ["encoded", "rendered"]

_AT_START = ("root_wd", "ncores", "nnodes", "nlist", "it", "itval")
_ON_ARRIVAL = ("rcnt", "uniq", "sname", "date", "time", "dateTime", "jname")
_VARIABLES = frozenset({*_AT_START, *_ON_ARRIVAL})

# Marks are lone surrogates: they cannot stand in text that a process can be given, so no value can contain one.
_OPEN, _CLOSE = "\ud800", "\ud801"
_MARK = re.compile(f"{_OPEN}([^{_OPEN}{_CLOSE}]*){_CLOSE}")

_NAME = "[_a-zA-Z][_a-zA-Z0-9]*"
_PLACEHOLDER = re.compile(
    rf"\$(?:\$\{{(?P<variable>{'|'.join(sorted(_VARIABLES))})\}}"
    rf"|(?P<dollar>\$)|(?P<named>{_NAME})|\{{(?P<braced>{_NAME})\}}|(?P<wrong>\{{)|)"
)
_BRACED_VARIABLE = re.compile(r"\$\{(" + "|".join(sorted(_VARIABLES)) + r")\}")
_requests = itertools.count(1)


def rendered(text: str, parameters: Mapping[str, Any], defaults: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """Return the descriptions that `text` gives with `parameters`, which beat `defaults`.

    A ``defaults`` dictionary at the top of the description is the weakest of all. Variables that the manager replaces
    at the start of a job are still marked: `encoded` makes what is sent.

    Raises:
        MissingParameter: a placeholder has no value.
        TemplateError: the text cannot be read, or a value cannot be written into it.
    """
    template = _compiled(text)
    values = {**template.defaults, **defaults, **parameters}
    variables = _Variables(values)
    filling = [_value_of(hole, values, variables) for hole in template.holes]
    pasted = template.structure is None or any(isinstance(value, _Text) for value in filling)
    structure = template.with_text(filling) if pasted else template.structure
    return _jobs_of(_fill(structure, filling, variables))


def encoded(job: Job) -> Dict[str, Any]:
    """Return `job` as the manager must get it to see what was written."""
    return {key: _encode(value, job["name"], 4 if key == "execution" else 2) for key, value in job.items()}


def _encode(value: Any, job_name: str, dollars: int) -> Any:
    if isinstance(value, str):
        if "$" not in value and _OPEN not in value:
            return value
        marked = value.replace("$", "$" * dollars)
        return _MARK.sub(lambda mark: job_name if mark.group(1) == "jname" else f"${{{mark.group(1)}}}", marked)
    if isinstance(value, dict):
        return {_encode(key, job_name, dollars): _encode(item, job_name, dollars) for key, item in value.items()}
    if isinstance(value, list):
        return [_encode(item, job_name, dollars) for item in value]
    return value


def _unique() -> str:
    import uuid  # it takes longer to import than most programs take to need it

    return str(uuid.uuid4())


class _Variables(Dict[str, str]):
    """The manager's variables that no parameter hides: those of the arrival by value, the others as marks."""

    def __init__(self, hidden: Mapping[str, Any]) -> None:
        super().__init__()
        self._hidden = hidden

    def known(self, name: str) -> bool:
        return name in _VARIABLES and name not in self._hidden

    def marked(self, name: str) -> str:
        """Return what ``$${name}`` of a template's text becomes: the manager's variable, whatever is hidden."""
        return f"{_OPEN}{name}{_CLOSE}" if name in (*_AT_START, "jname") else self[name]

    def __missing__(self, name: str) -> str:
        now = datetime.now()
        arrival: Dict[str, Callable[[], str]] = {
            "rcnt": lambda: str(next(_requests)),
            "uniq": _unique,
            "sname": lambda: "local",
            "date": lambda: str(now),
            "dateTime": lambda: str(now),
            "time": lambda: str(now.time()),
        }
        self[name] = arrival[name]() if name in arrival else f"{_OPEN}{name}{_CLOSE}"
        return self[name]


@dataclass(frozen=True)
class _Hole:
    """A placeholder: its name, whether it had braces, and whether it stands inside quotes."""

    name: str
    braced: bool
    quoted: bool


class _Text(str):
    """A str value for a placeholder outside quotes: a piece of the template's text."""

    __slots__ = ()


@dataclass(frozen=True)
class _Template:
    """A template's text cut at its placeholders: `pieces` has text and the numbers of `holes` in turn."""

    pieces: Tuple[Union[str, int], ...]
    holes: Tuple[_Hole, ...]
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
            elif filling is not None and isinstance(filling[piece], _Text):
                parts.append(filling[piece])
            else:
                mark = f"\\ud800{piece}\\ud801"
                parts.append(mark if self.holes[piece].quoted else f'"{mark}"')
        return "".join(parts)


@lru_cache(maxsize=256)
def _compiled(text: str) -> _Template:
    template = _cut(_without_marks(text))
    structure = None
    try:
        structure = _parsed(template.source())
    except TemplateError:
        if all(hole.quoted for hole in template.holes):
            raise  # no value can mend it; otherwise a str outside quotes may bring what is missing
    defaults = _take_defaults(structure)
    if _MARK.search(json.dumps(defaults, ensure_ascii=False)):
        raise TemplateError("the template's 'defaults' contain a placeholder; write plain values there")
    return _Template(template.pieces, template.holes, structure, defaults)


def _take_defaults(structure: Any) -> Dict[str, Any]:
    if isinstance(structure, dict) and "execution" in structure and isinstance(structure.get("defaults"), dict):
        return dict(structure.pop("defaults"))
    return {}


def _cut(text: str) -> _Template:
    pieces: List[Union[str, int]] = []
    holes: List[_Hole] = []
    quotes = _Quotes()
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        before = text[end : match.start()]
        pieces.append(before)
        quotes.read(before)
        end = match.end()
        if quotes.comment:
            continue
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
            if quotes.raw:
                raise TemplateError(f"the placeholder {name!r} stands in a raw string r'...'; leave the r out")
            pieces.append(len(holes))
            holes.append(_Hole(name, bool(match["braced"]), quotes.inside))
    pieces.append(text[end:])
    return _Template(tuple(pieces), tuple(holes))


def _without_marks(text: str) -> str:
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
        json_error = error
    try:
        tree = ast.fix_missing_locations(_JSONNames().visit(ast.parse(source, mode="eval")))
        return ast.literal_eval(tree)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        readable = _MARK_SOURCE.sub("${...}", source)
        line = getattr(error, "lineno", None)
        place = f"line {line}: {readable.splitlines()[line - 1].strip()!r}" if line else repr(readable[:200])
        raise TemplateError(
            f"the template is neither JSON ({json_error.args[0]}) nor a Python literal ({_reason(error)}) at {place}; "
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
        return ast.copy_location(ast.Constant(self._VALUES[node.id]), node) if node.id in self._VALUES else node


def _value_of(hole: _Hole, values: Mapping[str, Any], variables: _Variables) -> Any:
    """Return what goes into `hole`: a `_Text`, the text for inside quotes, or a plain value."""
    if hole.name not in values:
        if hole.braced and variables.known(hole.name):
            return variables[hole.name]
        raise MissingParameter(hole.name)
    value = values[hole.name]
    if not hole.quoted:
        return _Text(_without_marks(_sound(value, hole.name))) if isinstance(value, str) else _plain(value, hole.name)
    names = _future_names(value)
    if names is not None:
        if len(names) != 1:
            raise TemplateError(f"{hole.name!r} is a future of {len(names)} jobs inside quotes; leave the quotes out")
        return names[0]
    return _sound(str(value), hole.name)


def _plain(value: Any, name: str) -> Any:  # noqa: PLR0911  # a return a type
    """Return `value` in types that JSON has: numpy's scalars and arrays, paths, tuples and futures are turned."""
    if isinstance(value, str):
        return _sound(value, name)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    names = _future_names(value)
    if names is not None:
        return names
    if isinstance(value, os.PathLike):
        return _sound(os.fsdecode(value), name)
    if isinstance(value, Mapping):
        return {_sound(str(key), name): _plain(item, name) for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return _plain_items(value, name)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return _plain(value.tolist(), name)
    raise TemplateError(f"parameter {name!r} is a {type(value).__name__}; give text, a number, a list or a dictionary")


def _plain_items(values: Any, name: str) -> List[Any]:
    items: List[Any] = []
    for item in values:
        names = _future_names(item)
        items.extend([_plain(item, name)] if names is None else names)
    return items


def _future_names(value: Any) -> Optional[List[str]]:
    from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture

    return list(value.ids) if isinstance(value, QCGPJFuture) else None


def _sound(text: str, name: str) -> str:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise TemplateError(
            f"parameter {name!r} contains half a surrogate pair, which no process can be given"
        ) from None
    return text


def _fill(value: Any, filling: List[Any], variables: _Variables) -> Any:
    """Return a copy of `value` with the numbered marks replaced; keys whose value is None drop out."""
    if isinstance(value, str):
        return _fill_text(value, filling, variables)
    if isinstance(value, dict):
        filled = ((_fill(key, filling, variables), _fill(item, filling, variables)) for key, item in value.items())
        return {key: item for key, item in filled if item is not None}
    if isinstance(value, (list, tuple)):
        return [_fill(item, filling, variables) for item in value]
    return value


def _fill_text(text: str, filling: List[Any], variables: _Variables) -> Any:
    if _OPEN not in text:
        return _with_variables(text, variables)

    def inserted(mark: "re.Match[str]") -> Any:
        what = mark.group(1)
        if what == "$":
            return "$"
        if not what.isdigit():
            return variables.marked(what)
        value = filling[int(what)]
        return value if isinstance(value, str) and _OPEN in value else _fill(value, [], variables)

    whole = _MARK.fullmatch(text)
    return inserted(whole) if whole else _MARK.sub(lambda mark: str(inserted(mark)), text)


def _with_variables(text: str, variables: _Variables) -> str:
    """Replace or mark the manager's variables in a value; every other ``$`` stays what it is."""
    if "$" not in text:
        return text

    def variable(match: "re.Match[str]") -> str:
        return variables[match.group(1)] if variables.known(match.group(1)) else match.group()

    return _BRACED_VARIABLE.sub(variable, text)


def _jobs_of(filled: Any) -> List[Dict[str, Any]]:
    if isinstance(filled, dict) and "request" in filled:
        if filled["request"] != "submit":
            raise TemplateError(f"the template is a {filled['request']!r} request; only 'submit' can be submitted")
        filled = filled.get("jobs")
    jobs = filled if isinstance(filled, list) else [filled]
    if not jobs or not all(isinstance(job, dict) for job in jobs):
        raise TemplateError("the template gives no job description; it must be one dictionary or a list of them")
    return jobs
