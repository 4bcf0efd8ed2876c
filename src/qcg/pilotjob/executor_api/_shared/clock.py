"""The time that the manager keeps on record: of a clock that does not step, with a zone (see _shared/times.py)."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timezone, tzinfo
from typing import Iterator, Optional

from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.times import seconds

__all__ = ["RecordTime", "moment_at", "seconds"]


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
