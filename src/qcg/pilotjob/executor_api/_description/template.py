"""The text of a template, cut at its placeholders.

In the structure that is read, marks stand where the placeholders stood: ``<OPEN>number<CLOSE>`` for a value,
``<OPEN>name<CLOSE>`` for a variable of the manager, ``<OPEN>$<CLOSE>`` for the character itself.

A placeholder in quotes may bring a number, a list or a dictionary where text means nothing, so that the quotes are no
part of the value; with them the template is JSON for editors and other programs.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Dict, FrozenSet, Iterator, List, Mapping, Optional, Tuple, Union

from qcg.pilotjob.executor_api._description.reading import error_at, instead_of, parsed
from qcg.pilotjob.executor_api.errors import TemplateError

__all__ = [
    "ANY",
    "CLOSE",
    "MARK",
    "NO_TEXT",
    "OPEN",
    "OR_TEXT",
    "VARIABLES",
    "Hole",
    "Piece",
    "Template",
    "compiled",
    "cut",
    "even",
    "hole_in",
    "with_values",
    "without_marks",
    "without_schema",
]

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
    """A placeholder: its name, whether it had braces, whether it stands inside quotes, and where in the text.

    With `or_value` what is no text stays what it is, in spite of the quotes.
    """

    name: str
    braced: bool
    quoted: bool
    start: int
    end: int
    or_value: bool = False


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

    @cached_property
    def names(self) -> FrozenSet[str]:
        """Return the parameters that the template takes."""
        return frozenset(hole.name for hole in self.holes)

    def with_text(self, filling: List[Any]) -> Any:
        """Return the structure of the text with pieces of text in its holes."""
        try:
            structure = parsed(self.source(filling))
        except TemplateError as error:
            raise self._text_does_not_fit(filling, error) from error
        if _take_defaults(structure) and self.structure is None:
            raise TemplateError("the template's 'defaults' cannot be read before its other parameters are filled in")
        return structure

    def _text_does_not_fit(self, filling: List[Any], error: TemplateError) -> TemplateError:
        given = {number: value for number, value in enumerate(filling) if isinstance(value, Piece)}
        unreadable = [number for number, value in given.items() if not _is_readable(value)]
        if self.structure is not None and len(unreadable) == 1:
            number = unreadable[0]
            name, text = self.holes[number].name, str(given[number])
            advice = instead_of(name, text, _key_of(number, self.structure))
            if advice:
                problem = f"{name}={text[:50]!r} is text where the job takes none; {advice}"
                before = self.source().partition(f"\\ud800{number}\\ud801")[0]
                return TemplateError(f"{problem} (line {before.count(chr(10)) + 1} of the template)", problem)
        texts = ", ".join(f"{self.holes[number].name}={str(value)[:50]!r}" for number, value in given.items())
        why = f"{texts}: text, where the placeholder has no quotes, is a piece of the template"
        return TemplateError(f"{why}; give a list, a number or a dictionary. {error}", f"{why}. {error.problem}")

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
    text = without_schema(text)
    template = cut(text)
    structure = None
    try:
        structure = parsed(template.source())
    except TemplateError:
        if all(hole.quoted for hole in template.holes):
            parsed(even(text, template))  # raises the same, with the place in the user's own text
            raise  # no value can mend it; otherwise a str outside quotes may bring what is missing
    _refuse_late_schema(text, template, structure)
    defaults = _take_defaults(structure)
    try:
        mark = MARK.search(json.dumps(defaults, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError) as error:
        problem = (
            f"the template's 'defaults' have what JSON has not ({error}); write text, numbers, lists, dictionaries"
        )
        raise TemplateError(problem) from None
    if mark:
        problem = "the template's 'defaults' contain a placeholder; write plain values there"
        number = mark.group(1)
        raise error_at(text, template.holes[int(number)].start, problem) if number.isdigit() else TemplateError(problem)
    return Template(template.pieces, template.holes, structure, defaults)


def hole_in(value: Any) -> Optional[int]:
    """Return the number of the placeholder that is all of `value`; None when it is something else."""
    mark = MARK.fullmatch(value) if isinstance(value, str) else None
    return int(mark.group(1)) if mark and mark.group(1).isdigit() else None


def _is_readable(text: str) -> bool:
    try:
        parsed(text)
    except TemplateError:
        return False
    return True


def _key_of(number: int, structure: Any) -> Any:
    """Return the key whose value is the hole of that number; None when it is something else."""
    items = structure.items() if isinstance(structure, dict) else enumerate(structure)
    for key, value in items:
        if hole_in(value) == number:
            return key
        found = _key_of(number, value) if isinstance(value, (dict, list, tuple)) else None
        if found is not None:
            return found
    return None


def _refuse_late_schema(text: str, template: Template, structure: Any) -> None:
    for key in structure if isinstance(structure, dict) and "execution" in structure else ():
        number = hole_in(key)
        hole = None if number is None else template.holes[number]
        if hole is not None and (hole.name, hole.braced) == ("schema", False):
            raise error_at(text, hole.start, "'$schema' has to be the first key; here it would be a placeholder")


def without_schema(text: str) -> str:
    """Return `text` with blanks in the place of a ``"$schema"`` at its top, which is for editors alone."""
    found = _SCHEMA.match(text)
    return text if not found else text[: found.start(1)] + " " * len(found.group(1)) + text[found.end(1) :]


_BLANK = r"(?:\s|\#[^\n]*\n)*"
_SCHEMA = re.compile(
    _BLANK + r"\{" + _BLANK + r"""((?P<quote>["'])\$schema(?P=quote)[ \t]*:[ \t]*(?:"[^"\n]*"|'[^'\n]*')[ \t]*,?)"""
)


def even(text: str, template: Template) -> str:
    """Return `text` with a literal in the place of each placeholder outside quotes, no character longer or shorter."""
    parts = list(text)
    for hole in template.holes:
        if not hole.quoted:
            parts[hole.start : hole.end] = f'"{"_" * (hole.end - hole.start - 2)}"'
    return "".join(parts)


def _take_defaults(structure: Any) -> Dict[str, Any]:
    if isinstance(structure, dict) and "execution" in structure and isinstance(structure.get("defaults"), dict):
        return dict(structure.pop("defaults"))
    return {}


def cut(text: str) -> Template:
    """Return `text` cut at its placeholders, not yet read.

    Raises:
        TemplateError: with its place, for what can be no placeholder, or cannot be told from one.
    """
    half = _HALF_PAIR.search(text)
    if half:
        raise error_at(text, half.start(), _HALF_PAIR_PROBLEM)
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
        wrong = _wrong(match, quotes)
        if wrong:
            raise error_at(text, match.start() - quotes.escaped, wrong)
        name = match["named"] or match["braced"]
        if match["variable"]:
            pieces.append(f"\\ud800{match['variable']}\\ud801")
        elif name is None:
            pieces.append("\\ud800$\\ud801" if quotes.inside else match.group())
        else:
            pieces.append(len(holes))
            holes.append(Hole(name, bool(match["braced"]), quotes.inside, match.start(), end))
    pieces.append(text[end:])
    return Template(tuple(pieces), tuple(holes))


def _wrong(match: "re.Match[str]", quotes: _Quotes) -> str:
    """Return what is wrong with a placeholder, or nothing."""
    if quotes.escaped:
        return "a backslash stands before a '$'; write two for the character itself"
    if quotes.raw:
        return f"{match.group()!r} stands in a raw string r'...'; leave the r out"
    if match["wrong"]:
        written = match.string[match.start() : match.start() + 20].partition("\n")[0]
        return (
            f"'${{' does not begin a placeholder: {written!r}; write ${{name}}, or $${{ for the characters themselves"
        )
    return ""


_HALF_PAIR = re.compile(r"\\u[dD]80[01](?!\\u[dD][c-fC-F])")
_HALF_PAIR_PROBLEM = "the template contains half a surrogate pair, which no process can be given"


def without_marks(text: str) -> str:
    if _HALF_PAIR.search(text):
        raise TemplateError(_HALF_PAIR_PROBLEM)
    return text


class _Quotes:
    """Follows the text of a JSON or Python literal: is this place inside quotes?"""

    _TOKEN = re.compile(r"\\(?:.|\Z)|'''|\"\"\"|['\"]|#|\n", re.DOTALL)

    def __init__(self) -> None:
        self._quote = ""
        self.comment = False
        self.raw = False
        self.escaped = False

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
                    self.escaped = True
                elif token in (self._quote, self._quote * 3):
                    self._quote, self.raw = "", False
            elif token[0] in "'\"":
                self._quote = token
                self.raw = text[max(0, match.start() - 1) : match.start()] in ("r", "R")
            elif token == "#":
                self.comment = True


ANY = "*"
"""Stands for each key of a dictionary."""

OR_TEXT: Mapping[str, Any] = {}
"""The place takes text as well: only what is no text loses the quotes."""

_VALUE: Mapping[str, Any] = {}
_SIZE = {"exact": _VALUE, "min": _VALUE, "max": _VALUE, "scheduler": {"params": _VALUE}}
_OPTIONS = {"mpirun_args": OR_TEXT, "srun_args": OR_TEXT}
NO_TEXT: Mapping[str, Any] = {
    "execution": {"args": _VALUE, "env": _VALUE, "model_opts": _OPTIONS, "modules": OR_TEXT, "login": _VALUE},
    "resources": {
        "numCores": _SIZE,
        "numNodes": _SIZE,
        "ranks": _VALUE,
        "gpus": _VALUE,
        "nodeCrs": {ANY: _VALUE},
    },
    "iteration": {"start": _VALUE, "stop": _VALUE, "values": _VALUE},
    "dependencies": {"after": OR_TEXT},
    "attributes": _VALUE,
}
"""The places in a job description that take no text, or something beside text."""

_OPENING = re.compile(r"(?:'''|\"\"\"|['\"])$")


def with_values(template: Template) -> Template:
    """Return `template` with the placeholders as good as without quotes that stand where no text can be."""
    pieces, holes = list(template.pieces), list(template.holes)
    for number, or_text in _in_place(template.structure):
        at = template.pieces.index(number)
        before, after = str(pieces[at - 1]), str(pieces[at + 1])  # a placeholder is never beside another one
        opening = _OPENING.search(before)
        if not opening or not after.startswith(opening.group()):
            continue  # it has no quotes, or is one of several texts side by side
        if or_text:
            holes[number] = replace(holes[number], or_value=True)
            continue
        holes[number] = replace(holes[number], quoted=False)
        pieces[at - 1], pieces[at + 1] = before[: opening.start()], after[len(opening.group()) :]
    return replace(template, pieces=tuple(pieces), holes=tuple(holes))


def _in_place(structure: Any) -> Iterator[Tuple[int, bool]]:
    """Yield the numbers of the placeholders in question, and whether their places take text too."""
    if isinstance(structure, dict) and "request" in structure:
        structure = structure.get("jobs")
    for job in structure if isinstance(structure, list) else [structure]:
        yield from _in_mapping(job, NO_TEXT)


def _in_mapping(value: Any, places: Mapping[str, Any]) -> Iterator[Tuple[int, bool]]:
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        place = places.get(ANY, places.get(key))
        if place is None:
            continue
        number = hole_in(item)
        if number is not None:
            yield number, place is OR_TEXT
        else:
            yield from _in_mapping(item, place)
