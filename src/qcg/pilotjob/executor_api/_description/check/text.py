"""What keeps a template's text from being read: placeholders that are none, and syntax."""

from __future__ import annotations

import re
from typing import Callable, List, Optional, Tuple

from qcg.pilotjob.executor_api._description.quoted_values import with_values
from qcg.pilotjob.executor_api._description.reading import parsed
from qcg.pilotjob.executor_api._description.template import Template, compiled, cut, even, without_schema
from qcg.pilotjob.executor_api.errors import TemplateError

__all__ = ["Readable", "offset_of", "read"]

_MOST = 100
_STUMBLE = re.compile(r"""\\u....|\\.|\$\{[^{}"'\n]*\}?|\$\w*|\$""")


class Readable:
    """A template that was read.

    Attributes:
        template: the template.
        text: a literal with everything at the place that it has in the user's text.
    """

    def __init__(self, template: Template, text: str) -> None:
        self.template = template
        self.text = text


def read(text: str) -> Tuple[Optional[Readable], List[TemplateError]]:
    """Return the template, if it can be read at all, and what is wrong with its text."""
    text, problems = _mended(without_schema(text), cut)
    try:
        literal = even(text, cut(text))
        parsed(literal)
    except TemplateError as error:
        # behind a placeholder that is none the syntax is often wrong for that reason alone
        return None, problems or [error]
    text, more = _mended(text, compiled)
    try:
        return Readable(with_values(compiled(text)), literal), problems + more
    except TemplateError as error:  # it has no place: a variable of the manager among the defaults
        return None, [*problems, *more, error]


def _mended(text: str, step: Callable[[str], Template]) -> Tuple[str, List[TemplateError]]:
    """Do `step` until nothing stops it; what does is blotted out, so that all behind it keeps its place."""
    problems: List[TemplateError] = []
    while len(problems) < _MOST:
        try:
            step(text)
        except TemplateError as error:
            offset = offset_of(text, error)
            stumble = _STUMBLE.match(text, offset)
            if error.line is None or stumble is None:
                return text, problems
            problems.append(error)
            text = text[:offset] + "_" * len(stumble.group()) + text[stumble.end() :]
        else:
            break
    return text, problems


def offset_of(text: str, error: TemplateError) -> int:
    """Return where in `text` the place of an error is; 0 when it has none."""
    lines = text.split("\n")
    return sum(len(line) + 1 for line in lines[: (error.line or 1) - 1]) + (error.column or 1) - 1
