"""Where a placeholder may have quotes and still bring a number, a list or a dictionary.

Text means nothing in these places, so the quotes are no part of the value; with them the template is JSON for editors
and other programs.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Iterator, Mapping, Tuple

from qcg.pilotjob.executor_api._description.template import Template, hole_in

__all__ = ["ANY", "NO_TEXT", "OR_TEXT", "with_values"]

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
