"""What a template and its parameters may hold where the description does not prescribe it, so that it can be sent.

The manager gets JSON, as do the tools that read its records: no sets, no bytes, no NaN, no endless nesting.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._description.where import Where

__all__ = ["MOST_LEVELS", "is_too_large", "refuse_what_is_no_json"]

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
