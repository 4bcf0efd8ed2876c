"""The dispatcher's sockets to a manager on another machine: they may be cut off, and it may not be there yet.

What is promised on one machine is kept here by asking again: a request without a reply is sent again, marked as such,
and after each gap the dispatcher is told that it may have missed events.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Protocol, Tuple

import zmq

from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api._shared.ownership import NotOwned, read_owned
from qcg.pilotjob.executor_api._shared.protocol import SUBMISSION
from qcg.pilotjob.executor_api._shared.run_files import HANDOVER, KEYS, PRESENCE
from qcg.pilotjob.executor_api._shared.wakeup import Alarm
from qcg.pilotjob.executor_api.errors import AllocationFailed, InvalidOption, ManagerDied

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["OthersPeer", "Peer", "RemoteChannel"]

_READABLE = int(zmq.POLLIN)
_ANSWER_SECONDS = 3.0  # after which a request is sent again
_PING_SECONDS = 10.0
_LOOK_SECONDS = 1.0  # between two looks for a manager that nobody tells of
_OPTIONS = {
    zmq.HEARTBEAT_IVL: 5000,
    zmq.HEARTBEAT_TIMEOUT: 20_000,
    zmq.RECONNECT_IVL: 200,
    zmq.RECONNECT_IVL_MAX: 3000,
    zmq.CONNECT_TIMEOUT: 5000,
    zmq.LINGER: 0,
}


class Peer(Protocol):
    """Knows where the manager is, which changes with the allocation."""

    keys: Dict[str, Any]
    manager: Optional[Dict[str, Any]]

    reach_seconds: float

    @property
    def end_fd(self) -> int:
        """The descriptor that has news, -1 when there is none."""

    def endpoint(self, what: str, host: str) -> str:
        """Return the address of the manager's ``requests`` or ``events``."""

    def hear(self) -> bool:
        """Take the news that `end_fd` has; return False when there will be none any more."""

    def heard(self) -> None:
        """Note that the manager has said something."""

    def look(self) -> None:
        """Look whether there is news that nobody tells."""


class RemoteChannel:
    """The connection to the manager of a `Peer`. Belongs to the dispatcher's thread alone."""

    def __init__(self, peer: Peer, alarm: Alarm) -> None:
        self._peer = peer
        self._alarm = alarm
        self._context = zmq.Context()
        self._sockets = ExitStack()
        self._manager: Optional[Dict[str, Any]] = None
        self._sought: Dict[Any, str] = {}
        self._requests: Any = None
        self._events: Any = None
        self._reach_by = 0.0
        self._next_look = 0.0
        self._turn = 0
        self._unanswered: Optional[bytes] = None
        self._reply: Optional[Dict[str, Any]] = None
        self._said_at = 0.0
        self._was_sent = False
        self._has_missed = False
        self._longest_waiting = ""
        self._topics: Tuple[str, ...] = (protocol.JOB_FINISHED, protocol.HELLO)
        self.awaits_reply = False
        self.greeted = False
        self.lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._sockets.close()
        self._context.destroy()

    # ---- what the dispatcher does

    @property
    def description(self) -> Optional[Dict[str, Any]]:
        """What the manager says of itself."""
        return self._manager

    def send(self, message: bytes) -> None:
        """Send a request; its reply has to come before the next one can be sent."""
        self._turn += 1
        self._unanswered, self._was_sent, self._reply = message, False, None
        self.awaits_reply = True
        self._say()

    def wait(self, timeout: Optional[float]) -> bool:
        """Sleep until there is something to read, or `timeout` seconds; return whether there will be no manager."""
        self._follow()
        ready = dict(zmq.zmq_poll(self._sources(), self._milliseconds(timeout)))
        if self._alarm.fileno() in ready:
            self._alarm.clear()
        ended = self._peer.end_fd in ready and not self._peer.hear()
        self._follow()
        for source in [source for source in self._sought if source in ready]:
            if source in self._sought:  # another one may have been chosen just now
                self._take_answers(source)
        self._say_again()
        return ended

    def reply(self) -> Optional[Dict[str, Any]]:
        """Return the reply, if it has come."""
        reply, self._reply = self._reply, None
        if reply is not None:
            self.awaits_reply = False
        return reply

    def finished_jobs(self) -> List[Tuple[str, str, int]]:
        """Return name, state and number of the submission from the events that have come."""
        ended: List[Tuple[str, str, int]] = []
        while self._events is not None and self._events.poll(0):
            topic, content = protocol.event(self._events.recv())
            if topic == protocol.HELLO:
                self.greeted = self._has_missed = True
            elif topic == protocol.WAITING:
                self._longest_waiting = content["job"]
            else:
                ended.append((content["job"], sys.intern(content["state"]), content.get(SUBMISSION, 1)))
        return ended

    def listen(self) -> None:
        """Take the news of jobs that wait for cores from now on."""
        self._topics = (*self._topics, protocol.WAITING)
        if self._events is not None:
            self._events.setsockopt_string(zmq.SUBSCRIBE, protocol.WAITING)

    def longest_waiting(self) -> str:
        """Return which job has waited longest, when there was such news; otherwise an empty string."""
        name, self._longest_waiting = self._longest_waiting, ""
        return name

    def has_missed(self) -> bool:
        """Return whether events may have been missed since this was asked last."""
        missed, self._has_missed = self._has_missed, False
        return missed

    # ---- the connection

    def _follow(self) -> None:
        """Connect to the manager there is now."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            self._peer.look()
        if self._peer.manager is self._manager:
            return
        self._sockets.close()
        self._manager, self._requests, self._events = self._peer.manager, None, None
        self._sought.clear()
        self.greeted = False
        if self._manager is not None:
            self._reach_by = time.monotonic() + self._peer.reach_seconds
            for host in self._manager["remote"]["hosts"]:
                self._sought[self._connected(zmq.DEALER, "requests", host)] = host
            self._say_again(now=True)

    def _connected(self, kind: int, what: str, host: str) -> Any:
        connected = self._sockets.enter_context(self._context.socket(kind))
        keys = self._peer.keys
        connected.curve_publickey, connected.curve_secretkey = keys["public"].encode(), keys["secret"].encode()
        connected.curve_serverkey = keys["manager"].encode()
        for option, value in _OPTIONS.items():
            connected.setsockopt(option, value)
        if kind == zmq.SUB:
            connected.setsockopt(zmq.RCVHWM, 0)
            for topic in self._topics:
                connected.setsockopt_string(zmq.SUBSCRIBE, topic)
        connected.connect(self._peer.endpoint(what, host))
        return connected

    def _take_answers(self, source: Any) -> None:
        while source.poll(0):
            turn, text = source.recv_multipart()
            self._peer.heard()
            if self._requests is None:
                self._choose(source)
            if text and self._unanswered is not None and turn == b"%d" % self._turn:
                self._reply, self._unanswered = json.loads(text), None

    def _choose(self, source: Any) -> None:
        """Talk to the manager by the first of its addresses that has answered."""
        host = self._sought[source]
        for other in [other for other in self._sought if other is not source]:
            del self._sought[other]
            other.close()
        self._requests = source
        self._events = self._connected(zmq.SUB, "events", host)
        self._say_again(now=True)

    # ---- what is said, and when

    def _say(self) -> None:
        """Send the request, or only let the manager know that we are here."""
        self._said_at = time.monotonic()
        if self._requests is not None and self._unanswered is not None:
            self._put(self._requests, b"%d" % self._turn, b"1" if self._was_sent else b"0", self._unanswered)
            self._was_sent = True
            return
        for source in self._sought:
            self._put(source, b"0", b"0", b"")

    @staticmethod
    def _put(to: Any, *frames: bytes) -> None:
        try:
            to.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return  # so much waits to be sent already that the connection is cut

    def _say_again(self, *, now: bool = False) -> None:
        if self._sought and (now or time.monotonic() >= self._say_at()):
            self._say()
        if self._manager is not None and self._requests is None and time.monotonic() > self._reach_by:
            hosts = ", ".join(self._peer.endpoint("requests", host) for host in self._manager["remote"]["hosts"])
            seconds = self._peer.reach_seconds
            raise AllocationFailed(
                f"the manager says that it is ready, but nothing has answered from there for {seconds:g} s: "
                f"{hosts}\n  next: see that this machine may connect to ports of the nodes; where it may not, open an "
                "ssh tunnel and give tunnel= to Allocation, or run the program in the allocation"
            )

    def _say_at(self) -> float:
        waits = self._unanswered is not None or self._requests is None
        return self._said_at + (_ANSWER_SECONDS if waits else _PING_SECONDS)

    def _milliseconds(self, timeout: Optional[float]) -> int:
        due = [self._next_look] if self._peer.end_fd < 0 else []
        if self._sought:
            due.append(self._say_at())
        if timeout is not None:
            due.append(time.monotonic() + timeout)
        return max(0, int(1000 * (min(due) - time.monotonic())) + 1) if due else -1

    def _sources(self) -> List[Tuple[Any, int]]:
        sources = [self._alarm.fileno(), *self._sought]
        if self._events is not None:
            sources.append(self._events)
        if self._peer.end_fd >= 0:
            sources.append(self._peer.end_fd)
        return [(source, _READABLE) for source in sources]


_GAP_SECONDS = 3.0  # more than there is between two looks, unless this process stood still


class OthersPeer:
    """Finds the manager in an allocation of another program, by the files of its run; see `Peer`."""

    end_fd = -1
    reach_seconds = 60.0
    patience = 300.0
    """Seconds for which nothing may be heard of it: nobody tells that it was killed, with its node perhaps."""

    def __init__(self, run: str) -> None:
        """Look at the directory of a run.

        Raises:
            InvalidOption: it is another user's.
        """
        self._run = run
        try:
            self.keys: Dict[str, Any] = json.loads(read_owned(os.path.join(run, KEYS)))["client"]
        except NotOwned as error:
            raise InvalidOption(f"manager is {run!r}: {error}") from None
        self.manager: Optional[Dict[str, Any]] = None
        self._text = b""
        self._heard_at = math.inf
        self._looked_at = math.inf
        if not self.has_ended:
            with contextlib.suppress(ManagerDied):  # this moment: `has_ended` tells
                self.look()

    @property
    def has_ended(self) -> bool:
        """Whether there is no manager, and none is to come."""
        # in this order: the handover goes when the presence is there
        return not any(os.path.exists(os.path.join(self._run, name)) for name in (HANDOVER, PRESENCE))

    def endpoint(self, what: str, host: str) -> str:
        """Return the address of the manager's ``requests`` or ``events``."""
        assert self.manager is not None
        return f"tcp://{host}:{self.manager['remote'][what]}"

    def hear(self) -> bool:
        """Return False: nobody tells."""
        return False

    def heard(self) -> None:
        """Note that the manager has said something."""
        self._heard_at = time.monotonic()

    def look(self) -> None:
        """Look for the manager.

        Raises:
            ManagerDied: it has ended, or nothing is heard of it.
        """
        text = b""
        with contextlib.suppress(FileNotFoundError):
            text = read_owned(os.path.join(self._run, PRESENCE))
        if text and text != self._text:
            with contextlib.suppress(ValueError):  # it is being written
                self.manager, self._text, self._heard_at = json.loads(text), text, math.inf
        elif not text and (self._text or self.has_ended):
            raise ManagerDied(f"the manager of {self._run} has ended; resume= takes up what it has left")
        now = time.monotonic()
        if now - self._looked_at > _GAP_SECONDS:  # what has come meanwhile is not read yet
            self._heard_at += now - self._looked_at
        self._looked_at = now
        if now - self._heard_at > self.patience:
            raise ManagerDied(
                f"nothing has been heard of the manager of {self._run} for {self.patience:g} s: it was killed, or the "
                "network is gone; manager= connects to one that lives, resume= takes up what another has left"
            )
