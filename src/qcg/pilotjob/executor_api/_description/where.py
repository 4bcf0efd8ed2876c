"""Name the place of a fault in a description, and refuse there what cannot be sent.

The manager gets JSON, as do the tools that read its records: no sets, no bytes, no NaN, no endless nesting.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from qcg.pilotjob.executor_api._shared.texts import shown, spelled
from qcg.pilotjob.executor_api.errors import InvalidJob

__all__ = ["MOST_LEVELS", "Where", "is_too_large", "refuse_what_is_no_json"]

MOST_LEVELS = 100
"""How deep lists and dictionaries may be nested; deep ones end Python's recursion somewhere on the way."""

_MOST_BITS = 4096  # Python writes no number with more than 4300 digits


def is_too_large(value: int) -> bool:
    """Return whether a number cannot be written in decimals."""
    return value.bit_length() > _MOST_BITS


def refuse_what_is_no_json(at: Where, value: Any) -> None:
    """Raise `InvalidJob` for a number that JSON does not have, or a key that is no text, and name its place."""
    if isinstance(value, dict):
        for key, item in at.mapping(value).items():
            refuse_what_is_no_json(at / key, item)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            refuse_what_is_no_json(at / number, item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise at.error(f"is {value!r}", "JSON has no such number; write text, or leave it out")


_MARKED_VARIABLE = re.compile(r"(?:\\ud800|\ud800)(\w+)(?:\\ud801|\ud801)")


class Where:
    """A place in the description: it reads values of the expected type, and makes the errors that name the place."""

    __slots__ = ("_above", "_key", "_path")

    def __init__(
        self, key: Union[str, int], above: Optional[Where] = None, path: Tuple[Union[str, int], ...] = ()
    ) -> None:
        self._key = key
        self._above = above
        self._path = path

    def __truediv__(self, key: Union[str, int]) -> Where:
        return Where(key, self)

    def __str__(self) -> str:
        key = f"[{self._key}]" if isinstance(self._key, int) else self._key
        return key if self._above is None else f"{self._above}: {key}"

    @property
    def path(self) -> Tuple[Union[str, int], ...]:
        return self._path if self._above is None else (*self._above.path, self._key)

    def error(self, problem: str, instead: str, key: Optional[str] = None) -> InvalidJob:
        """Return an error of the value here, or of its `key`."""
        # the manager's variables are still marks here; the user wrote ${name}
        message = _MARKED_VARIABLE.sub(r"${\1}", f"{problem}; {instead}")
        return InvalidJob(f"{self} {message}", self.path, key, message)

    def mapping(self, value: Any, keys: Optional[Mapping[str, None]] = None) -> Dict[str, Any]:
        if not isinstance(value, (dict, Mapping)):
            raise self.error(f"is {shown(value)}", "write a dictionary {'key': value}")
        if keys is not None and value.keys() <= keys.keys():
            return dict(value)
        for key in value:
            if not isinstance(key, str):
                raise self.error(f"has the key {shown(key)}", "write keys as text", key)
            if keys is not None and key not in keys:
                close = difflib.get_close_matches(key, keys, n=1)
                raise self.error(
                    f"has the unknown key {key!r}",
                    f"did you mean {close[0]!r}?" if close else f"the keys are {', '.join(keys)}",
                    key,
                )
        return dict(value)

    def text(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.error(f"is {shown(value)}", "write text in quotes")
        if "\0" in value:
            raise self.error("contains a NUL character", "no process can be given one; remove it")
        return spelled(value)

    def truth(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self.error(f"is {shown(value)}", "write true or false")
        return value

    def path_text(self, value: Any) -> str:
        """Return a path; an empty one means that none was given."""
        return self.text(value if isinstance(value, str) or not isinstance(value, os.PathLike) else os.fspath(value))

    def whole(self, value: Any, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least or is_too_large(value):
            raise self.error(f"is {shown(value)}", f"write a whole number, {least} or more")
        return value

    def items(self, value: Any) -> List[Any]:
        if not isinstance(value, (list, tuple)):
            raise self.error(f"is {shown(value)}", "write a list [...]")
        return list(value)
