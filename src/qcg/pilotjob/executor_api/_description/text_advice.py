"""What to write in the place of a text that was given where a description takes none."""

from __future__ import annotations

import re
import shlex
from typing import Any, List

__all__ = ["instead_of"]

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
