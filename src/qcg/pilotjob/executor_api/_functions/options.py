"""Checks of the numbers that a pool is made with: a wrong one would be found much later, in the pool's thread."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from qcg.pilotjob.executor_api._shared.spelling import shown
from qcg.pilotjob.executor_api.errors import InvalidOption

__all__ = ["checked_count", "checked_seconds"]


def checked_count(name: str, value: Any, least: int) -> int:
    """Return a whole number.

    Raises:
        InvalidOption: it is none, or less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidOption(f"{name} must be a whole number, got {shown(value)}")
    if value < least:
        raise InvalidOption(
            f"{name} must be {'greater than 0' if least == 1 else f'{least} or more'}, got {shown(value)}"
        )
    return int(value)


def checked_seconds(name: str, value: Any) -> float:
    """Return a number of seconds, which may be without end.

    Raises:
        InvalidOption: it is no number, or less than 0.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidOption(f"{name} must be a number of seconds, or math.inf; got {shown(value)}")
    if not float(value) >= 0:  # as for NaN
        raise InvalidOption(f"{name} must be 0 or more, got {shown(value)}")
    return float(value)
