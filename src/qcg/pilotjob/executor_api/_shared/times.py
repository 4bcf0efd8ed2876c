"""The times on record.

A process reads the wall clock once, when it begins, and adds what a clock tells that never steps and that counts the
time in which the machine sleeps. So durations are right when somebody sets the wall clock, and when summer time begins
or ends.

A step of a job's history has its local time without a zone as "date", as tools of the core expect it, and as "time" the
seconds since the epoch. Records up to release 0.15, and those of the bare core, have the first alone.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import datetime, timezone, tzinfo
from typing import Any, Iterator, Mapping, Optional

from qcg.pilotjob.executor_api._shared.overriding import override

__all__ = ["RecordTime", "local", "moment_at", "moment_of", "now", "seconds"]

_CLOCK = time.CLOCK_BOOTTIME
_BEGAN = time.time() - time.clock_gettime(_CLOCK)


def moment_of(step: Mapping[str, Any]) -> datetime:
    """Return when a step of a history was, in local time with its zone."""
    when = step.get("time")
    return local(str(step["date"])) if when is None else datetime.fromtimestamp(when, timezone.utc).astimezone()


def local(text: str) -> datetime:
    """Return a time with its zone; one without is that of this machine."""
    return datetime.fromisoformat(text).astimezone()


def seconds() -> float:
    """Return the time, in seconds since the epoch."""
    return _BEGAN + time.clock_gettime(_CLOCK)


def now() -> datetime:
    """Return the local time with its zone."""
    return datetime.fromtimestamp(seconds(), timezone.utc).astimezone()


def moment_at(when: float) -> datetime:
    """Return a time in seconds since the epoch as one with a zone."""
    return datetime.fromtimestamp(when, timezone.utc)


class RecordTime(datetime):
    """Takes the place of ``datetime`` in modules of the core, which put ``datetime.now()`` on record."""

    _told: Optional[datetime] = None

    @classmethod
    @override
    def now(cls, tz: Optional[tzinfo] = None) -> datetime:  # type: ignore[override]  # with a zone, whatever is asked
        return cls._told or moment_at(seconds())

    @classmethod
    @contextmanager
    def set_to(cls, moment: Optional[datetime]) -> Iterator[None]:
        """Put `moment` on record for all that happens meanwhile; the true time when it is None."""
        before, cls._told = cls._told, moment
        try:
            yield
        finally:
            cls._told = before
