"""The dispatcher's connections to a manager on this machine: its sockets, or the record that it has left."""

from __future__ import annotations

import json
import sys
import threading
import weakref
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Protocol, Tuple

import zmq

from qcg.pilotjob.executor_api._client.ended_jobs import Report
from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api._shared.protocol import SUBMISSION
from qcg.pilotjob.executor_api._shared.wakeup import Alarm

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Channel", "Listener", "Listeners", "News", "RecordChannel"]


class Listener(Protocol):
    """Has cores to give back."""

    def others_wait(self, name: str) -> None:
        """Take the news that the job, or the iteration of one, called `name` has waited longest. It must not wait."""


class News(Protocol):
    """The part of a channel by which the manager says who waits."""

    def listen(self) -> None:
        """Take the news of jobs that wait for cores from now on."""

    def longest_waiting(self) -> str:
        """Return which job has waited longest, when there was such news; otherwise an empty string."""


class Listeners:
    """Holds weak references to those that are told. Any thread may add one; the rest is the dispatcher's thread's."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._references: List["weakref.ref[Listener]"] = []
        self._listens = False

    def add(self, listener: Listener) -> None:
        """Tell `listener` too, as long as somebody else keeps it."""
        with self._lock:
            there = [reference for reference in self._references if reference() is not None]
            self._references = [*there, weakref.ref(listener)]

    def hear(self, news: News) -> None:
        """Subscribe when the first listener has come, and tell all of them what has come."""
        if not self._references:
            return
        if not self._listens:
            self._listens = True
            news.listen()
        name = news.longest_waiting()
        for reference in self._references if name else ():
            listener = reference()
            if listener is not None:
                listener.others_wait(name)


_READABLE = int(zmq.POLLIN)  # which is an enum, and those are slow


class Channel:
    """The connection to a manager. Belongs to the dispatcher's thread alone."""

    def __init__(
        self, address: str, events: str, alarm: Alarm, end_fd: Optional[int], hear: Callable[[], bool]
    ) -> None:
        """`hear` reads what `end_fd` has to say, and returns False when the manager has ended."""
        self._alarm = alarm
        self._end_fd = end_fd
        self._hear = hear
        self._ready: Dict[Any, int] = {}
        self.description: Optional[Dict[str, Any]] = None  # what is known of the manager is the link's
        self.awaits_reply = False
        self.greeted = False
        self.lost = False
        self._longest_waiting = ""
        with ExitStack() as stack:
            self._context = stack.enter_context(zmq.Context())
            self._context.setsockopt(zmq.LINGER, 0)
            self._requests = stack.enter_context(self._context.socket(zmq.REQ))
            self._events = stack.enter_context(self._context.socket(zmq.SUB))
            self._events.setsockopt(zmq.RCVHWM, 0)
            for topic in (protocol.JOB_FINISHED, protocol.HELLO):
                self._events.setsockopt_string(zmq.SUBSCRIBE, topic)
            self._monitor = self._watch_connection() if end_fd is None else None
            self._requests.connect(address)
            self._events.connect(events)
            # a Poller does the same with these, and takes longer
            self._alarm_fd = alarm.fileno()
            self._sources = [
                (source, _READABLE)
                for source in (self._requests, self._events, self._alarm_fd, end_fd, self._monitor)
                if source is not None
            ]
            self._stack = stack.pop_all()

    def _watch_connection(self) -> Any:
        """Watch the connection to a manager that is not ours: its loss is all that tells of that manager's end.

        One that has ended before it could be connected to is never lost, but every attempt is followed by another.
        """
        return self._requests.get_monitor_socket(
            zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_HANDSHAKE_SUCCEEDED
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._monitor is not None:
            self._requests.disable_monitor()
            self._monitor.close()
        self._stack.close()

    def send(self, message: bytes) -> None:
        """Send a request; its reply has to come before the next one can be sent."""
        self._requests.send(message)
        self.awaits_reply = True

    def wait(self, timeout: Optional[float]) -> bool:
        """Sleep until there is something to read, or `timeout` seconds; return whether the manager has ended."""
        milliseconds = -1 if timeout is None else int(timeout * 1000) + 1
        self._ready = ready = dict(zmq.zmq_poll(self._sources, milliseconds))
        if self._alarm_fd in ready:
            self._alarm.clear()
        if self._monitor is not None and self._monitor in ready:
            # the first frame is the event's number, 16 bits, and its value, 32 bits
            number = int.from_bytes(self._monitor.recv_multipart()[0][:2], sys.byteorder)
            self.lost = number != zmq.EVENT_HANDSHAKE_SUCCEEDED
        return self._end_fd is not None and self._end_fd in ready and not self._hear()

    def reply(self) -> Optional[Dict[str, Any]]:
        """Return the reply, if it was there when `wait` returned."""
        if self._requests not in self._ready:
            return None
        self.awaits_reply = False
        return json.loads(self._requests.recv())  # type: ignore[no-any-return]  # the manager's replies are objects

    def finished_jobs(self) -> List[Tuple[str, str, int]]:
        """Return name, state and number of the submission from events, also some that came since `wait` returned."""
        ended: List[Tuple[str, str, int]] = []
        for message in self._unread_events() if self._events in self._ready else ():
            topic, content = protocol.event(message)
            if topic == protocol.HELLO:
                self.greeted = True
            elif topic == protocol.WAITING:
                self._longest_waiting = content["job"]
            else:
                state = sys.intern(content["state"])  # a few states, in very many futures
                ended.append((content["job"], state, content.get(SUBMISSION, 1)))
        return ended

    def listen(self) -> None:
        """Take the news of jobs that wait for cores from now on."""
        self._events.setsockopt_string(zmq.SUBSCRIBE, protocol.WAITING)

    def longest_waiting(self) -> str:
        """Return which job has waited longest, when there was such news; otherwise an empty string."""
        name, self._longest_waiting = self._longest_waiting, ""
        return name

    def has_missed(self) -> bool:
        """Return False: on one machine no event is lost."""
        return False

    def _unread_events(self) -> List[bytes]:
        messages: List[bytes] = [self._events.recv()]
        # the next recv() would say the same by an exception, which takes three times as long
        if not zmq.zmq_poll([(self._events, _READABLE)], 0):
            return messages
        try:
            while len(messages) < 1000:
                messages.append(self._events.recv(zmq.NOBLOCK))
        except zmq.Again:
            return messages
        return messages


class RecordChannel:
    """Knows how jobs have ended, and refuses all else. Belongs to the dispatcher's thread alone."""

    description = None
    greeted = True
    lost = False

    def __init__(self, report: Report, alarm: Alarm) -> None:
        self._report = report
        self._alarm = alarm
        self._reply: Optional[Dict[str, Any]] = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Nothing is open."""

    @property
    def awaits_reply(self) -> bool:
        """Whether a reply waits to be fetched."""
        return self._reply is not None

    def send(self, message: bytes) -> None:
        """Answer a request."""
        request = json.loads(message)
        states = {name: self._report.state(name) for name in request.get("jobNames", [])}
        if request["request"] == "jobStatus" and all(states.values()):
            jobs = {
                name: {"data": {"jobName": name, "status": state, SUBMISSION: self._report.submission(name)}}
                for name, state in states.items()
            }
            self._reply = {"code": 0, "data": {"jobs": jobs}}
            return
        missing = ", ".join(name for name, state in states.items() if not state)
        what = f"; {missing} had not ended before that" if missing else ""
        self._reply = {"code": -1, "message": f"the manager has ended{what}; resume= takes up what it has left"}

    def wait(self, timeout: Optional[float]) -> bool:
        """Sleep until there is a reply, the alarm is set, or `timeout` seconds have passed."""
        milliseconds = 0 if self._reply is not None else -1 if timeout is None else int(timeout * 1000) + 1
        if zmq.zmq_poll([(self._alarm.fileno(), zmq.POLLIN)], milliseconds):
            self._alarm.clear()
        return False

    def reply(self) -> Optional[Dict[str, Any]]:
        """Return the reply, if there is one."""
        reply, self._reply = self._reply, None
        return reply

    def finished_jobs(self) -> List[Tuple[str, str, int]]:
        """Return nothing: no job ends any more."""
        return []

    def has_missed(self) -> bool:
        """Return False: there are no events."""
        return False

    def listen(self) -> None:
        """Do nothing: no job waits."""

    def longest_waiting(self) -> str:
        """Return nothing."""
        return ""
