"""What an executor is connected to: a manager process of our own, or a manager that somebody else started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from qcg.pilotjob.executor_api._client.process import ManagerProcess
from qcg.pilotjob.executor_api._client.report import Report
from qcg.pilotjob.executor_api.errors import InvalidOption
from qcg.pilotjob.executor_api.jobs import Capacity

__all__ = ["Link"]


@dataclass(frozen=True)
class Link:
    """A manager's addresses, and what can be expected of it.

    Attributes:
        greets: it tells a new subscriber when it is one.
        trusted: its events carry the states of jobs; a bare core's may carry that of one iteration.
        first_check: seconds until the first question for states that no event has told.
        process: the process, when it is ours and ends with us.
        report: what it has on record, when it is ours.
    """

    address: str
    events: str
    capacity: Capacity
    greets: bool
    trusted: bool
    first_check: float
    process: Optional[ManagerProcess] = None
    report: Optional[Report] = None

    @property
    def end_fd(self) -> Optional[int]:
        """The descriptor whose end is that of the process."""
        return self.process.end_fd if self.process is not None else None

    def recorded_state(self, name: str) -> str:
        """Return the state in which a job has ended, an empty string when nothing is on record."""
        return self.report.state(name) if self.report is not None else ""

    @classmethod
    def to_process(cls, process: ManagerProcess) -> Link:
        """Return the link to a manager process that is ready."""
        return cls(
            process.address,
            process.events,
            process.capacity,
            greets=True,
            trusted=True,
            first_check=5.0,
            process=process,
            report=Report(process.directories.report),
        )

    @classmethod
    def to_manager(cls, manager: Any) -> Link:
        """Return the link to what `manager`, a ``Manager`` or ``LocalManager`` of the core, is connected to.

        Raises:
            InvalidOption: it is neither, or its manager does not publish events.
        """
        from qcg.pilotjob.api.manager import Manager

        if not isinstance(manager, Manager):
            raise InvalidOption(
                f"manager is {manager!r}; give a qcg.pilotjob.api.manager.Manager or LocalManager, or leave it out "
                "for a manager of the executor's own"
            )
        if not manager._publisher_address:
            raise InvalidOption("the given manager publishes no events; start it without --disable-pub")
        resources = manager.resources()
        capacity = Capacity(resources["total_nodes"], resources["total_cores"])
        return cls(manager._address, manager._publisher_address, capacity, greets=False, trusted=False, first_check=0.1)
