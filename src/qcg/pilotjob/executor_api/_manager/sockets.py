"""The manager's two sockets for its own machine, private: files in a directory that only the owner can enter.

As long as a job waits for cores, clients with pools of functions are told so: the workers of a pool can give some back.
The other end is _client/channels.py. The news is published again and again as long as a job waits, so nothing is lost
with a message, and not at all as long as nobody has subscribed to it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

import zmq
from qcg.pilotjob.publisher import EventTopic, StatusPublisher
from qcg.pilotjob.response import Response
from qcg.pilotjob.zmqinterface import ZMQInterface
from zmq.asyncio import Context

from qcg.pilotjob.executor_api._execution.pool import Size
from qcg.pilotjob.executor_api._manager.job_queue import Reserve, WaitingJobs
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.protocol import HELLO, RETURNS, WAITING

__all__ = ["QueueNews", "is_next"]

_logger = logging.getLogger(__name__)

# The ":0" is there for the core's client, which appends a port to every address that has none.
REQUESTS = "manager:0"
EVENTS = "events:0"
_GATHER_SECONDS = 0.005
LINGER = 300  # milliseconds in which a reply or an event can still leave when the process ends


class BoundSocket:
    """A socket that is served by the event loop, without the tasks that ``zmq.asyncio`` takes for each message.

    None that is bound here ever has to wait before it can send.
    """

    def __init__(self, kind: int, address: str, on_message: Callable[..., None], **options: Any) -> None:
        """`on_message` is called with the frames of each message."""
        context: Any = Context.instance()
        self._socket: "zmq.Socket[bytes]" = context.socket(kind, socket_class=zmq.Socket)
        for name, value in options.items():
            self._socket.setsockopt(getattr(zmq, name), value)
        self._socket.bind(address)
        self._on_message = on_message
        self._loop = asyncio.get_event_loop()
        self._loop.add_reader(self._socket.fileno(), self._read)

    @property
    def port(self) -> int:
        """The port of a TCP socket."""
        endpoint = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(endpoint, bytes)
        return int(endpoint.rstrip(b"\0").rpartition(b":")[2])

    def send(self, *frames: bytes) -> None:
        """Send a message, if the socket is still there."""
        if self._socket.closed:
            return
        self._socket.send_multipart(frames)
        self._read()  # the descriptor does not tell again of what came before

    def close(self) -> None:
        """Close the socket."""
        if not self._socket.closed:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _read(self) -> None:
        while not self._socket.closed and int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            frames = self._socket.recv_multipart()
            try:
                self._on_message(*frames)
            except MemoryError:  # which is the end of the manager
                raise
            except Exception:  # the descriptor does not tell again of the messages behind this one
                _logger.exception("a message could not be read: %.200r", frames)


class NoRequest(Exception):
    """A message is no request; the text says why."""


def request_in(*frames: bytes) -> Dict[str, Any]:
    """Return the request that a message holds.

    Raises:
        NoRequest: it holds none.
    """
    if len(frames) != 1:
        raise NoRequest(f"the request has {len(frames)} parts, not one")
    try:
        request = json.loads(frames[0])
    except (ValueError, RecursionError) as error:
        raise NoRequest(f"the request is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise NoRequest("the request is not a JSON object")
    return request


class RequestInterface(ZMQInterface):  # type: ignore[misc]  # the core is untyped
    """The REP socket.

    Mends C5 (a TCP port open to every user of every host) and C7 (one message that is not JSON ends the service).
    Can go when the core can bind to an address it is given and answers malformed messages.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self._ours = address

    @override
    def setup(self, conf: Dict[Any, Any]) -> None:
        self.address = self.real_address = self.external_address = self._ours
        self._messages: "asyncio.Queue[Tuple[bytes, ...]]" = asyncio.Queue()
        self.socket = BoundSocket(zmq.REP, self.address, lambda *frames: self._messages.put_nowait(frames))

    @override
    async def receive(self) -> Dict[str, Any]:
        while True:
            try:
                return request_in(*await self._messages.get())
            except NoRequest as error:
                await self.reply(Response.error(str(error)).to_json())

    @override
    async def reply(self, reply_msg: str) -> None:
        self.socket.send(reply_msg.encode())


class EventPublisher(StatusPublisher):  # type: ignore[misc]  # the core is untyped
    """The PUB socket, as an XPUB that greets each new subscriber, and sends only what somebody has subscribed to.

    Mends C5, and C3 (events beyond the high-water mark are dropped). The greeting tells a subscriber that from now on
    it misses nothing. Can go when the core can bind to an address it is given and has no high-water mark.

    Each event that goes alone wakes four threads, which costs as much as all else that is done about the end of a job.
    So as long as jobs wait for cores, and nobody waits for an event to submit what could run instead, they go together.
    """

    may_gather: Callable[[], bool] = staticmethod(lambda: False)
    on_listener: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    @override
    def setup(self, conf: Dict[Any, Any]) -> None:
        self._loop = asyncio.get_event_loop()
        self._gathered: List[bytes] = []
        self._timer: Optional[asyncio.TimerHandle] = None
        self.address = self.external_address = f"ipc://{self._directory / EVENTS}"
        self._subscribed: Tuple[str, ...] = ()
        self._sockets: List[BoundSocket] = []
        self.add_socket(self.address)

    def add_socket(self, address: str, **options: Any) -> BoundSocket:
        """Publish at another address too."""
        added = BoundSocket(
            zmq.XPUB,
            address,
            lambda message: self._take_subscription(added, message),
            SNDHWM=0,
            XPUB_VERBOSE=1,
            **options,
        )
        self._sockets.append(added)
        return added

    def _take_subscription(self, to: BoundSocket, message: bytes) -> None:
        if message.startswith(b"\x01"):
            topic = message[1:].decode(errors="replace")
            if topic not in self._subscribed:
                self._subscribed += (topic,)
            if topic == HELLO:
                to.send(f"{HELLO} {{}}".encode())
            if topic == WAITING:
                self.on_listener()

    @property
    def has_listener(self) -> bool:
        """Whether somebody wants to know which job waits."""
        return WAITING in self._subscribed

    def tell_who_waits(self, name: str) -> None:
        """Publish which job, or iteration of one, has waited longest for cores."""
        message = f"{WAITING} {json.dumps({'job': name})}".encode()
        for publishing in self._sockets:
            publishing.send(message)

    @override
    def publish(self, topic: EventTopic, data: Dict[str, Any]) -> None:
        if not topic.value.startswith(self._subscribed):
            return
        self._gathered.append(f"{topic.value} {json.dumps(data)}".encode())
        if not self.may_gather():
            self._send_gathered()
        elif self._timer is None:
            self._timer = self._loop.call_later(_GATHER_SECONDS, self._send_gathered)

    def _send_gathered(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, []
        for message in gathered:
            for publishing in self._sockets:
                publishing.send(message)

    def close(self) -> None:
        """Publish what was gathered, and nothing more."""
        self._send_gathered()
        for publishing in self._sockets:
            publishing.close()

    @override
    async def stop(self) -> None:
        self.close()


_FIRST_SECONDS = 0.05  # most jobs have cores by then
_PAUSE_SECONDS = 0.1


def is_next(job: Any) -> bool:
    """Return whether a job goes before all others: the worker that follows one that gave its cores to another job."""
    pool = (job.attributes or {}).get(RETURNS)
    return isinstance(pool, str) and pool != "" and bool(job.get_name().startswith(pool))


class QueueNews:
    """Publishes which job has waited longest for cores. Belongs to the loop's thread."""

    def __init__(self, publisher: EventPublisher, waiting: WaitingJobs, ahead: Reserve) -> None:
        self._publisher = publisher
        self._waiting = waiting
        self._ahead = ahead
        self._loop = asyncio.get_event_loop()
        self._timer: Optional[asyncio.TimerHandle] = None
        publisher.on_listener = self.look

    def look(self) -> None:
        """Begin to publish when a job waits: after jobs were started, and when somebody has subscribed."""
        if self._timer is None and self._publisher.has_listener and self._longest_waiting():
            self._timer = self._loop.call_later(_FIRST_SECONDS, self._tell)

    def _tell(self) -> None:
        self._timer = None
        name = self._longest_waiting()
        if name:
            self._publisher.tell_who_waits(name)
            self._timer = self._loop.call_later(_PAUSE_SECONDS, self._tell)

    def _longest_waiting(self) -> str:
        """Return the name of the job, or of the iteration of one, that is the next; an empty string when none waits."""
        if self._ahead.first is not None:
            return str(self._ahead.first.job_iteration.name)
        nothing_ready: Set[Size] = set()  # arrays of which the next iterations wait for other jobs
        while True:
            waiting = self._waiting.first(sys.maxsize, nothing_ready)
            if waiting is None:
                return ""
            for iteration in waiting.candidates():
                return str(iteration.name)
            nothing_ready.add(waiting.size)
