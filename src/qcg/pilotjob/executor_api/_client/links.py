"""The kinds of manager that an executor is connected to, and what can be expected of each."""

from __future__ import annotations

import json
import os
import socket
import struct
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Protocol, Tuple, Union

from qcg.pilotjob.executor_api._client.channels import Channel, News, RecordChannel
from qcg.pilotjob.executor_api._client.ended_jobs import Report
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.ownership import NotOwned, owner_name, read_owned, refuse_foreign
from qcg.pilotjob.executor_api._shared.run_files import KEYS, PRESENCE, Directories, find_run, is_lived_in
from qcg.pilotjob.executor_api._shared.wakeup import Alarm
from qcg.pilotjob.executor_api.errors import InvalidOption, ManagerDied
from qcg.pilotjob.executor_api.jobs import Capacity

if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = [
    "UNKNOWN",
    "BareCore",
    "DetachedAllocation",
    "Link",
    "OthersAllocation",
    "OthersProcess",
    "OwnLink",
    "OwnProcess",
    "Owned",
    "Wire",
    "link_to_directory",
]

UNKNOWN = 1 << 40
"""Cores or nodes of an allocation that has not told of its own yet."""


class Owned(Protocol):
    """A process that ends with the executor: its manager, or the guard of its allocation."""

    pid: int
    directories: Directories

    @property
    def end_fd(self) -> int:
        """The pipe whose end is that of the process."""

    @property
    def description(self) -> Dict[str, Any]:
        """What the manager says of itself, when it is ready."""

    @property
    def reason(self) -> str:
        """Why the manager has ended by itself, in its words; an empty string when this client has asked for its end."""

    def hear(self) -> bool:
        """Take the news that `end_fd` has; return False when there will be none any more."""

    def wait(self, timeout: float) -> bool:
        """Wait for the end; return whether it came."""

    def farewell(self) -> None:
        """Take the news that the manager was told to end."""

    def kill(self) -> None:
        """End it, and every job, at once."""

    def clean_up(self) -> None:
        """Collect what has ended."""

    def close_descriptors(self) -> None:
        """Close this process's ends of the pipes."""

    def obituary(self) -> ManagerDied:
        """Return the exception that tells how it has ended."""


class Wire(News, Protocol):
    """The dispatcher's way to a manager: a `Channel`, or another class with the same methods."""

    lost: bool

    @property
    def description(self) -> Optional[Dict[str, Any]]:
        """What the manager says of itself, where that is not known from the start."""

    @property
    def greeted(self) -> bool:
        """Whether no event is missed from now on."""

    @property
    def awaits_reply(self) -> bool:
        """Whether the reply to the latest request has not come."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...

    def send(self, message: bytes) -> None:
        """Send a request."""

    def wait(self, timeout: Optional[float]) -> bool:
        """Sleep until there is something to read, or `timeout` seconds; return whether the manager has ended."""

    def reply(self) -> Optional[Dict[str, Any]]:
        """Return the reply, if it was there."""

    def finished_jobs(self) -> List[Tuple[str, str, int]]:
        """Return name, state and number of the submission from the events that were there."""

    def has_missed(self) -> bool:
        """Return whether events may have been missed."""


class Link(ABC):
    """Holds what is known of a manager: its capacity, its record, what can be expected of it. Each kind is a class.

    Attributes:
        capacity: what its jobs can have.
        report: what it has on record, when it is a manager of this package.
        address: of its socket for requests; an empty string when that is on another machine.
        events: the address of its socket for events; likewise.
        greets: it tells a new subscriber when it is one.
        trusted: its events carry the states of jobs; a bare core's may carry that of one iteration.
        first_check: seconds until the first question for states that no event has told.
        is_local: its jobs are processes of this machine.
        is_ours: it ends with this executor.
        is_remote: it is in an allocation, so it may not be there yet, or out of reach for a while.
        run: the directory of the manager, when that is another executor's.
    """

    address = ""
    events = ""
    greets = True
    trusted = True
    first_check = 5.0
    is_local = False
    is_ours = False
    is_remote = False
    run = ""

    def __init__(self, capacity: Capacity, report: Optional[Report]) -> None:
        self.capacity = capacity
        self.report = report

    @abstractmethod
    def channel(self, alarm: Alarm) -> Wire:
        """Return the connection to the manager, to be entered."""

    def describe(self, description: Dict[str, Any]) -> None:
        """Take what the manager says of itself."""
        self.capacity = _capacity(description)

    def recorded_state(self, name: str) -> str:
        """Return the state in which a job has ended, an empty string when nothing is on record.

        What the manager has interrupted counts when this client had asked the manager to end.
        """
        return self.report.state(name, interrupted=False) if self.report is not None else ""

    # ---- the end of the manager: of one that is not ours, nothing has to be done

    def farewell(self) -> None:  # noqa: B027
        """Take the news that the manager was told to end."""

    def wait(self, timeout: float) -> bool:  # noqa: ARG002  # whose end is waited for has it
        """Wait for the end of a manager of ours; return whether it came."""
        return True

    def kill(self) -> None:  # noqa: B027
        """End a manager of ours, and every job, at once."""

    def clean_up(self) -> None:  # noqa: B027
        """Collect what has ended."""

    def close_descriptors(self) -> None:  # noqa: B027
        """Close this process's ends of the pipes."""

    def obituary(self) -> ManagerDied:
        """Return the exception that tells how the manager has ended; of another's, that it is lost."""
        told = f"the connection to the manager at {self.address} is lost"
        if self.run:
            told += (
                f"\n  log:  {os.path.join(self.run, 'service.log')}"
                f"\n  next: read its end, which says why the manager has ended; an executor with "
                f"resume={self.run!r} runs the jobs that have not"
            )
        return ManagerDied(told)


class OwnLink(Link):
    """The link to a manager that ends with this executor, as the `process` that looks after it does."""

    is_ours = True

    def __init__(self, process: Owned, capacity: Capacity, report: Report) -> None:
        super().__init__(capacity, report)
        self.process = process

    @override
    def recorded_state(self, name: str) -> str:
        return self.report.state(name, interrupted=not self.process.reason) if self.report is not None else ""

    @override
    def farewell(self) -> None:
        self.process.farewell()

    @override
    def wait(self, timeout: float) -> bool:
        return self.process.wait(timeout)

    @override
    def kill(self) -> None:
        self.process.kill()

    @override
    def clean_up(self) -> None:
        self.process.clean_up()

    @override
    def close_descriptors(self) -> None:
        self.process.close_descriptors()

    @override
    def obituary(self) -> ManagerDied:
        return self.process.obituary()


class OwnProcess(OwnLink):
    """The link to the executor's own manager process, which is ready."""

    def __init__(self, process: Owned) -> None:
        description = process.description
        super().__init__(process, _capacity(description), _report(description))
        self.address, self.events = description["address"], description["events"]
        self.is_local = description["local"]

    @override
    def channel(self, alarm: Alarm) -> Wire:
        return Channel(self.address, self.events, alarm, self.process.end_fd, self.process.hear)


class OthersProcess(Link):
    """The link to the manager process of another executor, by what that manager says of itself."""

    def __init__(self, run: str, description: Dict[str, Any]) -> None:
        super().__init__(_capacity(description), _report(description))
        self.run = run
        self.address, self.events = description["address"], description["events"]
        self.is_local = description["local"]

    @override
    def channel(self, alarm: Alarm) -> Wire:
        return Channel(self.address, self.events, alarm, None, lambda: True)


class OthersAllocation(Link):
    """The link to a manager in an allocation of another program: one that goes on, or waits in the queue, or has ended.

    Raises:
        InvalidOption: the directory of its run is another user's.
    """

    is_remote = True

    def __init__(self, run: str) -> None:
        from qcg.pilotjob.executor_api._client.remote_channel import OthersPeer

        super().__init__(Capacity(UNKNOWN, UNKNOWN), Report(Path(run, "jobs.report"), interrupted=False))
        self._peer = OthersPeer(run)

    @override
    def channel(self, alarm: Alarm) -> Wire:
        if self._peer.has_ended and self.report is not None:
            return RecordChannel(self.report, alarm)
        from qcg.pilotjob.executor_api._client.remote_channel import RemoteChannel

        return RemoteChannel(self._peer, alarm)


class DetachedAllocation(Link):
    """Stands for the manager in an allocation that was left to itself: what it had on record can be looked up."""

    is_remote = True

    @override
    def channel(self, alarm: Alarm) -> Wire:
        assert self.report is not None
        return RecordChannel(self.report, alarm)


class BareCore(Link):
    """The link to what a ``Manager`` or ``LocalManager`` of the core is connected to.

    Raises:
        InvalidOption: `manager` is neither, or it does not publish events.
    """

    greets = False
    trusted = False
    first_check = 0.1

    def __init__(self, manager: Any) -> None:
        from qcg.pilotjob.api.manager import Manager

        if not isinstance(manager, Manager):
            raise InvalidOption(
                f"manager is {manager!r}; give a qcg.pilotjob.api.manager.Manager or LocalManager, or leave it out "
                "for a manager of the executor's own"
            )
        if not manager._publisher_address:
            raise InvalidOption("the given manager publishes no events; start it without --disable-pub")
        resources = manager.resources()
        super().__init__(Capacity(resources["total_nodes"], resources["total_cores"]), None)
        self.address, self.events = manager._address, manager._publisher_address

    @override
    def channel(self, alarm: Alarm) -> Wire:
        return Channel(self.address, self.events, alarm, None, lambda: True)


def link_to_directory(directory: Union[str, "os.PathLike[str]"]) -> Union[OthersProcess, OthersAllocation]:
    """Return the link to the manager, another executor's, that lives in `directory`.

    Raises:
        InvalidOption: there is no directory of a manager, or it is another user's.
        ManagerDied: the manager has ended, or is out of reach.
    """
    run = find_run("manager", directory)
    if os.path.exists(os.path.join(run, KEYS)):
        return OthersAllocation(run)
    try:
        description = json.loads(read_owned(Path(run, PRESENCE)))
    except NotOwned as error:
        raise InvalidOption(f"manager is {os.fspath(directory)!r}: {error}") from None
    except (FileNotFoundError, ValueError):
        raise ManagerDied(f"the manager of {run} has ended; resume= takes up what it has left") from None
    _refuse_deaf(run, description)
    return OthersProcess(run, description)


def _report(description: Dict[str, Any]) -> Report:
    return Report(Path(description["report"]), description["recorded"])


def _capacity(description: Dict[str, Any]) -> Capacity:
    capacity = description["capacity"]
    return Capacity(
        nodes=capacity["nodes"],
        cores=capacity["cores"],
        node_cores=tuple((usable, whole) for usable, whole in capacity["node_cores"]),
        node_resources=None if capacity["node_resources"] is None else tuple(capacity["node_resources"]),
    )


def _refuse_deaf(run: str, description: Dict[str, Any]) -> None:
    """Refuse a manager that does not listen, and whoever else listens in its place.

    Raises:
        ManagerDied: nobody listens.
        InvalidOption: it is another user who does.
    """
    address = description["address"][len("ipc://") :]
    manager = f"the manager of {run}, process {description['pid']} on {description['host']},"
    with socket.socket(socket.AF_UNIX) as knock:
        try:
            refuse_foreign(os.path.dirname(address))
            knock.connect(address)
        except NotOwned as error:
            raise InvalidOption(f"{manager} is not reached: {error}") from None
        except OSError as error:
            raise ManagerDied(f"{manager} {_why_deaf(run, description, error)}") from None
        _, uid, _ = struct.unpack("3i", knock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if uid != os.geteuid():
        raise InvalidOption(f"{manager} is not reached: {owner_name(uid)} listens at {address}")


def _why_deaf(run: str, description: Dict[str, Any], error: OSError) -> str:
    here = socket.gethostname()
    if not is_lived_in(run):
        return (
            f"cannot be reached from {here}: {error.strerror}; on its own host that means that it has ended, and "
            "resume= takes up what it has left"
        )
    if description["host"] != here:
        return f"lives, and can be reached from {description['host']} only; this is {here}"
    return (
        f"lives, but its sockets are gone: {description['sockets']} was removed, as by who cleans temporary files; its "
        "jobs go on and are recorded, and its own client is still connected; set TMPDIR to a directory that nobody "
        "cleans"
    )
