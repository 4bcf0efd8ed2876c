"""What an executor is connected to: a manager process of its own, another executor's, or a manager of the bare core."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Union

from qcg.pilotjob.executor_api._client.directories import PRESENCE, find_run
from qcg.pilotjob.executor_api._client.process import ManagerProcess
from qcg.pilotjob.executor_api._client.report import Report
from qcg.pilotjob.executor_api.errors import InvalidOption, ManagerDied
from qcg.pilotjob.executor_api.jobs import Capacity

__all__ = ["Link"]


@dataclass(frozen=True)
class Link:
    """A manager's addresses, and what can be expected of it.

    Attributes:
        greets: it tells a new subscriber when it is one.
        trusted: its events carry the states of jobs; a bare core's may carry that of one iteration.
        first_check: seconds until the first question for states that no event has told.
        process: the process, when it is this executor's and ends with it.
        report: what it has on record, when it is a manager of this package.
        is_local: its jobs are processes of this machine.
    """

    address: str
    events: str
    capacity: Capacity
    greets: bool
    trusted: bool
    first_check: float
    process: Optional[ManagerProcess] = None
    report: Optional[Report] = None
    is_local: bool = False

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
        return cls._described(process.description, process)

    @classmethod
    def to_directory(cls, directory: Union[str, "os.PathLike[str]"]) -> Link:
        """Return the link to the manager, another executor's, that lives in `directory`.

        Raises:
            InvalidOption: there is no directory of a manager, or it is another user's.
            ManagerDied: the manager has ended, or is out of reach.
        """
        run = find_run("manager", directory)
        try:
            description = json.loads(Path(run, PRESENCE).read_bytes())
        except PermissionError as error:
            raise InvalidOption(
                f"manager is {os.fspath(directory)!r}, which belongs to another user: {error}"
            ) from None
        except (FileNotFoundError, ValueError):
            raise ManagerDied(f"the manager of {run} has ended; resume= takes up what it has left") from None
        _refuse_deaf(run, description)
        return cls._described(description, None)

    @classmethod
    def _described(cls, description: Dict[str, Any], process: Optional[ManagerProcess]) -> Link:
        capacity = description["capacity"]
        return cls(
            description["address"],
            description["events"],
            Capacity(
                nodes=capacity["nodes"],
                cores=capacity["cores"],
                node_cores=tuple((usable, whole) for usable, whole in capacity["node_cores"]),
                resources=capacity["resources"],
            ),
            greets=True,
            trusted=True,
            first_check=5.0,
            process=process,
            report=Report(Path(description["report"]), description["recorded"]),
            is_local=description["local"],
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


def _refuse_deaf(run: str, description: Dict[str, Any]) -> None:
    with socket.socket(socket.AF_UNIX) as knock:
        try:
            knock.connect(description["address"][len("ipc://") :])
        except OSError as error:
            raise ManagerDied(
                f"the manager of {run}, process {description['pid']} on {description['host']}, cannot be reached from "
                f"{socket.gethostname()}: {error.strerror}; on its own host that means that it has ended, and resume= "
                "takes up what it has left"
            ) from None
