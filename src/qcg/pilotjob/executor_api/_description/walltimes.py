"""Read walltimes: what a user writes for the time that something may run, as the manager takes it."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from numbers import Real
from typing import Any, Union

from qcg.pilotjob.executor_api._shared.texts import shown

__all__ = ["Walltime", "as_manager_has_it", "seconds_in"]

Walltime = Union[str, float, timedelta]

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_NUMBER = r"\d+(?:\.\d+)?"
_OF_THE_MANAGER = re.compile(r"(?=\d)(?:\d+h)?(?:\d+m)?(?:\d+s)?", re.ASCII)
_IN_UNITS = re.compile("(?=[0-9])" + "".join(f"(?:({_NUMBER}){unit})?" for unit in _UNITS), re.ASCII)
_SECONDS = re.compile(_NUMBER, re.ASCII)
# as Slurm has it, and as Python writes a timedelta
_CLOCK = re.compile(r"(?:(\d+)(?:-| days?, ))?(\d+):([0-5]\d):([0-5]\d(?:\.\d+)?)", re.ASCII)
_HALF_A_CLOCK = re.compile(r"(\d+):(\d+)", re.ASCII)
_MOST_SECONDS = 10**10  # 317 years: what clocks and timers take
_INSTEAD = "write seconds, like 90, or '1h30m', '01:30:00', '1-00:00:00' with the days before it"


def seconds_in(walltime: Any) -> float:
    """Return the seconds of a walltime: a number of them, a timedelta, or text like ``1h30m`` or ``01:30:00``.

    Raises:
        ValueError: it is none; the message is about the value, and says what to write instead.
    """
    seconds = _seconds_in(walltime)
    if seconds <= 0:
        raise ValueError(f"is {shown(walltime)}; write more than 0, or leave it out for no limit")
    if seconds > _MOST_SECONDS:
        raise ValueError(f"is {shown(walltime)}, which is more than 300 years; leave it out for no limit")
    return seconds


def as_manager_has_it(walltime: Any) -> str:
    """Return a walltime in hours, minutes and whole seconds, rounded up.

    Raises:
        ValueError: as `seconds_in`.
    """
    whole = math.ceil(round(seconds_in(walltime), 6))
    if isinstance(walltime, str) and _OF_THE_MANAGER.fullmatch(walltime):
        return walltime
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return "".join(f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (seconds, "s")) if number)


def _seconds_in(walltime: Any) -> float:
    if isinstance(walltime, timedelta):
        return walltime.total_seconds()
    if isinstance(walltime, Real) and not isinstance(walltime, bool):
        try:
            seconds = float(walltime)
        except OverflowError:
            seconds = math.inf
        if not math.isfinite(seconds):
            raise ValueError(f"is {shown(walltime)}; leave it out for no limit")
        return seconds
    if not isinstance(walltime, str):
        raise ValueError(f"is {shown(walltime)}; {_INSTEAD}")  # noqa: TRY004  # as for text
    if _SECONDS.fullmatch(walltime):
        return float(walltime)
    in_units = _IN_UNITS.fullmatch(walltime)
    if in_units:
        numbers = zip(in_units.groups(), _UNITS.values())
        return sum(float(number) * unit for number, unit in numbers if number)
    return _of_clock(walltime)


def _of_clock(text: str) -> float:
    clock = _CLOCK.fullmatch(text)
    if clock and (clock[1] is None or int(clock[2]) < 24):
        days, hours, minutes, seconds = (float(number or 0) for number in clock.groups())
        return days * 86400 + hours * 3600 + minutes * 60 + seconds
    half = _HALF_A_CLOCK.fullmatch(text)
    if half:
        raise ValueError(
            f"is {text!r}, which may be minutes and seconds, or hours and minutes; "
            f"write '{half[1]}m{half[2]}s' or '{half[1]}h{half[2]}m'"
        )
    raise ValueError(f"is {text!r}; {_INSTEAD}")
