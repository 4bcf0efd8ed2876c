"""Rules for descriptions that client and manager must apply alike: names, sizes, circles, variables.

A name stands in paths (``<name>.out``), in command lines that users write, in lists and in pictures. So it has no
character that means something to a shell, the manager or a terminal, and no path made of it leaves its directory.
"""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter
from string import Template
from typing import Any, Iterable, List, Mapping, Tuple

__all__ = [
    "FREE_NAME",
    "JOB_ID_VARIABLE",
    "MARKS",
    "MODELS",
    "MOST_ITERATIONS",
    "MPI_MODELS",
    "SHORT",
    "circle_in",
    "in_pieces",
    "problem_of_name",
    "problem_of_script",
    "problem_of_text",
    "replaced",
]

JOB_ID_VARIABLE = "QCG_PM_EXEC_API_JOB_ID"
MPI_MODELS = ("openmpi", "intelmpi", "srunmpi")
MODELS = ("default", "threads", *MPI_MODELS)
FREE_NAME = "run it again after qcgpj_manager.remove([name])"
"""What to do about a name that is taken, in error messages."""

MARKS = "-_./@+=,#~"
"""What a name may have beside letters, digits, and what can be printed beyond ASCII."""

_ORDINARY = re.compile(rf"[A-Za-z0-9{re.escape(MARKS)}]+")
_ADVICE = f"use letters, digits and {' '.join(MARKS)} (and what can be printed beyond ASCII)"


def problem_of_name(name: str) -> Tuple[str, str]:
    """Return what is wrong with a name, and what to do about it; two empty texts when it is good."""
    if not name:
        return "is empty", _ADVICE
    if not _ORDINARY.fullmatch(name):
        for character in name:
            if not (character.isprintable() and (not character.isascii() or _ORDINARY.fullmatch(character))):
                return f"{name!r} contains {character!r}", _ADVICE
    if "/" in name or name in (".", ".."):
        for part in name.split("/"):
            if part in ("", ".", ".."):
                what = f"has the part {part!r}" if part else "begins or ends with '/', or has two in a row"
                return f"{name!r} {what}", "its files would be elsewhere; write parts like a/b, wd= says where they are"
    return "", ""


MOST_ITERATIONS = 1_000_000
"""Of one array. Each is a job, so nobody means more, and a mistyped number is easily a thousand times that."""

_MOST_TEXT = 128 * 1024 - 1  # bytes: Linux gives no process a longer argument, or variable with its name
SHORT = _MOST_TEXT // 4 - 100
"""Characters, which have four bytes at the most: so many fit into a variable."""
_MOST_SCRIPT = 1024 * 1024  # bytes: all that a process is given is 2 MiB at the most


def problem_of_text(text: str, name: str = "") -> str:
    """Return why no process can be given an argument, or the value of the variable `name`; nothing when one can."""
    size = _size(f"{name}={text}" if name else text)
    return f"has {size} bytes; a process can be given {_MOST_TEXT}" if size > _MOST_TEXT else ""


def problem_of_script(script: str) -> str:
    """Return why a script is too long, its variables included; nothing when it is not."""
    size = _size(script)
    return (
        f"has {size} bytes with its variables; a script has {_MOST_SCRIPT} at the most" if size > _MOST_SCRIPT else ""
    )


def _size(text: str) -> int:
    return len(text) if len(text) < SHORT else len(text.encode(errors="surrogatepass"))


def in_pieces(script: str) -> List[str]:
    """Return a script in pieces each of which fits into a variable."""
    return [script[begin : begin + SHORT] for begin in range(0, len(script), SHORT)]


def circle_in(waits: Mapping[str, Iterable[str]]) -> List[str]:
    """Return jobs that wait for each other, an empty list when none do; `waits` has the `after` of each job."""
    try:
        TopologicalSorter({job: {name.partition(":")[0] for name in after} for job, after in waits.items()}).prepare()
    except CycleError as error:
        return list(dict.fromkeys(error.args[1]))
    return []


def replaced(value: Any, variables: Mapping[str, str]) -> Any:
    """Return a copy of `value` with the variables replaced in all its texts.

    In what was parsed, text by text: the core pastes into JSON, where a quote or a backslash in a value does damage
    (mends C14), and which takes longer than all else that is done with a submission.
    """
    if isinstance(value, str):
        return Template(value).safe_substitute(variables) if "$" in value else value
    if isinstance(value, dict):
        return {replaced(key, variables): replaced(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, variables) for item in value]
    return value
