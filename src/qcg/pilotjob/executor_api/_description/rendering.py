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

import difflib
import itertools
import json
import numbers
import os
import re
import reprlib
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

from qcg.pilotjob.executor_api._description.reading import parsed, text_of
from qcg.pilotjob.executor_api._description.template import (
    CLOSE,
    MARK,
    OPEN,
    VARIABLES,
    Hole,
    Piece,
    Template,
    compiled,
    hole_in,
    with_values,
    without_marks,
)
from qcg.pilotjob.executor_api._description.where import MOST_LEVELS, is_too_large
from qcg.pilotjob.executor_api._shared.texts import spelled
from qcg.pilotjob.executor_api.errors import MissingParameter, TemplateError
from qcg.pilotjob.executor_api.jobs import HasJobNames, Job

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["drafted", "encoded", "rendered", "text_of_template", "unused"]

_BRACED_VARIABLE = re.compile(r"\$\{(" + "|".join(sorted(VARIABLES)) + r")\}")
_OPEN_IN_JSON = json.dumps(OPEN).strip('"')
_to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_requests = itertools.count(1)


def rendered(text: str, parameters: Mapping[str, Any], defaults: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """Return the descriptions that `text` gives with `parameters`, which beat `defaults`.

    A ``defaults`` dictionary at the top of the description is the weakest of all. Variables that the manager replaces
    at the start of a job are still marked: `encoded` makes what is sent.

    Raises:
        MissingParameter: a placeholder has no value.
        TemplateError: the text cannot be read, or a value cannot be written into it.
    """
    template, prepared = _prepared_template(text)
    values = {**template.defaults, **defaults, **parameters}
    variables = _Variables(values)
    filling = [_value_of(hole, values, variables) for hole in template.holes]
    if prepared is None or Piece in map(type, filling):
        prepared = _prepared(template.with_text(filling))
    return _jobs_of(_fill(prepared, filling, variables))


def text_of_template(path: Path) -> str:
    """Return the text in a file.

    Raises:
        OSError: the file cannot be read.
        TemplateError: no parameters can make a description of it.
    """
    try:
        text = text_of(path)
        _prepared_template(text)
    except TemplateError as error:
        raise TemplateError(f"{path}: {error}", error.problem, error.line, error.column) from error
    return text


def unused(text: str, names: Iterable[str]) -> str:
    """Return what to say of parameters that no placeholder of the template takes; nothing when there are none."""
    takes = _prepared_template(text)[0].names
    surplus = [name for name in names if name not in takes and name not in VARIABLES]  # those hide the manager's
    if not surplus:
        return ""
    close = difflib.get_close_matches(surplus[0], takes, n=1)
    more = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(sorted(takes)) or 'no parameters'}"
    return f"the template has no placeholder {', '.join(map(repr, surplus))}; {more}"


def drafted(template: Template, values: Mapping[str, Any], stand_in: Callable[[int], Any]) -> List[Dict[str, Any]]:
    """Return the descriptions of a template that was read; `stand_in` gives a value for each number without one.

    Raises:
        TemplateError: a value cannot be written into the template, or there is no description in it.
    """
    variables = _Variables(values)
    filling = []
    for number, hole in enumerate(template.holes):
        known = hole.name in values or (hole.braced and variables.known(hole.name))
        value = _value_of(hole, values, variables) if known else stand_in(number)
        filling.append(parsed(value) if isinstance(value, Piece) else value)
    return _jobs_of(_fill(_prepared(template.structure), filling, variables))


def encoded(job: Job) -> str:
    """Return `job` as JSON, as the manager must get it to see what was written."""
    text = _to_json(job)
    if "$" not in text and _OPEN_IN_JSON not in text:
        return text
    return _to_json({key: _encode(value, job["name"], 4 if key == "execution" else 2) for key, value in job.items()})


def _encode(value: Any, job_name: str, dollars: int) -> Any:
    if isinstance(value, str):
        if "$" not in value and OPEN not in value:
            return value
        marked = value.replace("$", "$" * dollars)
        return MARK.sub(lambda mark: job_name if mark.group(1) == "jname" else f"${{{mark.group(1)}}}", marked)
    if isinstance(value, dict):
        return {_encode(key, job_name, dollars): _encode(item, job_name, dollars) for key, item in value.items()}
    if isinstance(value, list):
        return [_encode(item, job_name, dollars) for item in value]
    return value


def _unique() -> str:
    import uuid  # it takes longer to import than most programs take to need it

    return str(uuid.uuid4())


class _Variables(Dict[str, str]):
    """The manager's variables: those of the arrival by value, the others as marks. Parameters may hide them."""

    def __init__(self, hidden: Mapping[str, Any]) -> None:
        self._hidden = hidden

    def known(self, name: str) -> bool:
        return name in VARIABLES and name not in self._hidden

    def __missing__(self, name: str) -> str:
        self[name] = _ARRIVAL[name]() if name in _ARRIVAL else f"{OPEN}{name}{CLOSE}"
        return self[name]


_ARRIVAL: Dict[str, Callable[[], str]] = {
    "rcnt": lambda: str(next(_requests)),
    "uniq": _unique,
    "sname": lambda: "local",
    "date": lambda: str(datetime.now()),
    "dateTime": lambda: str(datetime.now()),
    "time": lambda: str(datetime.now().time()),
}


def _value_of(hole: Hole, values: Mapping[str, Any], variables: _Variables) -> Any:  # noqa: PLR0911
    """Return what goes into `hole`: a `Piece`, the text for inside quotes, or a plain value."""
    name = hole.name
    if name not in values:
        if hole.braced and variables.known(name):
            return variables[name]
        raise MissingParameter(name)
    value = values[name]
    if type(value) is str and hole.quoted:
        return _sound(value, name)
    if hole.or_value and type(value) is not str:
        return _plain(value, name)
    if not hole.quoted:
        return Piece(without_marks(_sound(spelled(value), name))) if isinstance(value, str) else _plain(value, name)
    if value is None:
        return None  # its key drops out
    names = _future_names(value)
    if names is not None:
        if len(names) != 1:
            raise TemplateError(f"{name!r} is a future of {len(names)} jobs inside quotes; leave the quotes out")
        return names[0]
    return _sound(_spelled(value, name), name)


def _spelled(value: Any, name: str) -> str:
    try:
        return spelled(value)
    except Exception as error:  # str() of a user's class may raise anything
        raise TemplateError(
            f"parameter {name!r} is a {type(value).__name__} that cannot be written as text: {type(error).__name__}"
        ) from error


def _plain(value: Any, name: str, level: int = 0) -> Any:
    """Return `value` in types that JSON has: numpy's scalars and arrays, paths, tuples and futures are turned."""
    if isinstance(value, (str, timedelta)):
        return _sound(spelled(value), name)
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        if is_too_large(value):
            raise TemplateError(f"parameter {name!r} has a number of {value.bit_length()} bits; give it as text")
        return value
    names = _future_names(value)
    if names is not None:
        return names
    if level > MOST_LEVELS:
        raise TemplateError(f"parameter {name!r} is nested deeper than {MOST_LEVELS} levels, or holds itself")
    return _plain_parts(value, name, level + 1)


def _plain_parts(value: Any, name: str, level: int) -> Any:
    if isinstance(value, (list, tuple, range)):
        return _plain_items(value, name, level)
    if isinstance(value, os.PathLike):
        return _sound(os.fsdecode(value), name)
    if isinstance(value, Mapping):
        return {_plain_key(key, name): _plain(item, name, level) for key, item in value.items()}
    if isinstance(value, numbers.Integral):
        return _plain(int(value), name)
    if isinstance(value, numbers.Real):
        return float(value)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return _plain(value.tolist(), name, level)
    raise TemplateError(f"parameter {name!r} is a {type(value).__name__}; give text, a number, a list or a dictionary")


def _plain_key(key: Any, name: str) -> str:
    if isinstance(key, bool) or not isinstance(key, (str, numbers.Real)):
        raise TemplateError(f"parameter {name!r} has a key that is a {type(key).__name__}; write keys as text")
    return _sound(_spelled(key, name), name)


def _plain_items(values: Any, name: str, level: int) -> List[Any]:
    items: List[Any] = []
    for item in values:
        names = _future_names(item)
        items.extend([_plain(item, name, level)] if names is None else names)
    return items


def _future_names(value: Any) -> Optional[List[str]]:
    return list(value.ids) if isinstance(value, HasJobNames) else None


def _sound(text: str, name: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise TemplateError(
            f"parameter {name!r} contains half a surrogate pair, which no process can be given"
        ) from None
    return text


class _Hole(int):
    """The place of a value, by its number."""


class _Text(str):
    """Text with marks, or with what may be the manager's variables."""

    __slots__ = ()


class _List(List[Any]):
    """The items of a list, prepared."""


class _Dict(List[Tuple[Any, Any]]):
    """The items of a dictionary, prepared."""


_PREPARED = frozenset({_Hole, _Text, _List, _Dict})  # all else stays what it is


@lru_cache(maxsize=256)
def _prepared_template(text: str) -> Tuple[Template, Any]:
    template = with_values(compiled(text))
    return template, None if template.structure is None else _prepared(template.structure)


def _prepared(value: Any, level: int = 0) -> Any:
    """Return `value` in a form that tells what has to be filled in.

    Raises:
        TemplateError: it is something of Python's that cannot be sent.
    """
    if isinstance(value, str):
        number = hole_in(value)
        if number is not None:
            return _Hole(number)
        return _Text(value) if OPEN in value or "$" in value else value
    if isinstance(value, dict):
        if level > MOST_LEVELS:
            raise TemplateError(f"the template is nested deeper than {MOST_LEVELS} levels")
        return _Dict((_prepared_key(key), _prepared(item, level + 1)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        if level > MOST_LEVELS:
            raise TemplateError(f"the template is nested deeper than {MOST_LEVELS} levels")
        return _List(_prepared(item, level + 1) for item in value)
    if isinstance(value, int) and is_too_large(value):
        raise TemplateError(f"the template has a number of {value.bit_length()} bits; write it as text")
    if value is not None and not isinstance(value, (bool, int, float)):
        raise TemplateError(
            f"the template has {reprlib.repr(value)}, a {type(value).__name__}; write text, a number, a list or a "
            "dictionary"
        )
    return value


def _prepared_key(key: Any) -> Any:
    return _prepared(key) if isinstance(key, str) else key


def _fill(value: Any, filling: List[Any], variables: _Variables) -> Any:
    """Return what was prepared with all filled in; keys whose value is None drop out."""
    kind = type(value)
    if kind is _Hole:
        return _filled(filling[value], variables)
    if kind is _Dict:
        filled = {}
        for key, item in value:
            given = _fill(item, filling, variables) if type(item) in _PREPARED else item
            if given is not None:
                filled[_filled_key(key, filling, variables) if type(key) in _PREPARED else key] = given
        return filled
    if kind is _List:
        return [_fill(item, filling, variables) for item in value]
    return _fill_text(value, filling, variables) if kind is _Text else value


def _filled_key(key: Any, filling: List[Any], variables: _Variables) -> Any:
    filled = _fill(key, filling, variables)
    if isinstance(filled, (list, dict)):
        raise TemplateError(f"a placeholder that is a key stands for {reprlib.repr(filled)}; give text")
    return filled


def _filled(value: Any, variables: _Variables) -> Any:
    """Return a value that was given, with the manager's variables in it; one that is a variable is ready."""
    if isinstance(value, str):
        return value if "$" not in value or OPEN in value else _with_variables(value, variables)
    return _fill(_prepared(value), [], variables)


def _fill_text(text: str, filling: List[Any], variables: _Variables) -> str:
    if OPEN not in text:
        return _with_variables(text, variables)

    def inserted(mark: "re.Match[str]") -> str:
        what = mark.group(1)
        if what == "$":
            return "$"
        if not what.isdigit():
            return variables[what]  # $${name} in the text: the manager's variable, whatever is hidden
        value = filling[int(what)]
        if value is None:
            raise TemplateError("a parameter that is None stands inside other text; give text, '' for nothing")
        return str(_filled(value, variables))

    return MARK.sub(inserted, text)


def _with_variables(text: str, variables: _Variables) -> str:
    """Replace or mark the manager's variables in a value; every other ``$`` stays what it is."""

    def variable(match: "re.Match[str]") -> str:
        return variables[match.group(1)] if variables.known(match.group(1)) else match.group()

    return _BRACED_VARIABLE.sub(variable, text)


def _jobs_of(filled: Any) -> List[Dict[str, Any]]:
    if isinstance(filled, dict) and "request" in filled:
        if filled["request"] != "submit":
            raise TemplateError(f"the template is a {filled['request']!r} request; only 'submit' can be submitted")
        filled = filled.get("jobs")
    jobs = filled if isinstance(filled, list) else [filled]
    if any(isinstance(job, dict) and "request" in job for job in jobs):
        raise TemplateError(
            "the template is a list of requests; give the jobs of its 'submit' request, or that request"
        )
    if not jobs or not all(isinstance(job, dict) for job in jobs):
        raise TemplateError("the template gives no job description; it must be one dictionary or a list of them")
    return jobs
