"""The manager's two sockets for a client on another machine: TCP, encrypted, open to one key.

The client knows the manager's public key and the manager the client's, both from a file that only the user can read.
So neither talks to anybody else; CurveZMQ sees to that, for each connection anew.

    requests (ROUTER)    [turn, again, request]  ->  [turn, reply]     a request may come again, when no reply has come
    events   (XPUB)      as on the local socket
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Tuple

import psutil
import zmq
from qcg.pilotjob.response import Response
from qcg.pilotjob.zmqinterface import ZMQInterface
from zmq.asyncio import Context
from zmq.auth.base import Authenticator

from qcg.pilotjob.executor_api._manager.sockets import BoundSocket, EventPublisher, NoRequest, request_in
from qcg.pilotjob.executor_api._shared.overriding import override

if TYPE_CHECKING:
    pass

__all__ = ["ClientWatch", "Remote", "RemoteInterface"]

_DOMAIN = b"qcgpj"
_HEARTBEAT = 5000  # milliseconds
_HEARTBEAT_TIMEOUT = 20_000


class Remote:
    """Both sockets, and who may use them."""

    def __init__(self, keys: Dict[str, Any]) -> None:
        """`keys` has this side's ``public`` and ``secret`` key, and the ``client``'s public one."""
        self._client = keys["client"].encode()
        self._options = {
            "CURVE_SERVER": 1,
            "CURVE_PUBLICKEY": keys["public"].encode(),
            "CURVE_SECRETKEY": keys["secret"].encode(),
            "ZAP_DOMAIN": _DOMAIN,
            "HEARTBEAT_IVL": _HEARTBEAT,
            "HEARTBEAT_TIMEOUT": _HEARTBEAT_TIMEOUT,
        }
        self._gate = _Gate(self)  # before there is a socket that one could connect to
        self.interface = RemoteInterface(self._options)

    def callback(self, domain: str, key: bytes) -> bool:  # noqa: ARG002  # there is one domain
        """Return whether whoever has that public key may connect."""
        return bool(key == self._client)

    def publish_by(self, publisher: EventPublisher) -> None:
        """Have `publisher` send its events here too."""
        self._events = publisher.add_socket("tcp://*:*", **self._options)

    def describe(self) -> Dict[str, Any]:
        """Return where a client finds the sockets: hosts to try, in this order, and ports."""
        return {"hosts": _hosts(), "requests": self.interface.socket.port, "events": self._events.port}

    @property
    def last_heard(self) -> float:
        """When the client has last said something, on the loop's clock."""
        return self.interface.last_heard

    def close(self) -> None:
        """Fall silent."""
        self.interface.close()
        self._events.close()
        self._gate.stop()


class _Gate(Authenticator):
    """Is asked about every client. pyzmq's own for asyncio needs a loop that runs already."""

    def __init__(self, who_may: Remote) -> None:
        super().__init__(Context.instance())
        self._loop = asyncio.get_event_loop()
        self.start()
        self.configure_curve_callback(_DOMAIN.decode(), who_may)
        self._loop.add_reader(self.zap_socket.fileno(), self._read)

    @override
    def stop(self) -> None:
        if self.zap_socket is not None:
            self._loop.remove_reader(self.zap_socket.fileno())
            super().stop()

    def _read(self) -> None:
        zap_socket: Any = self.zap_socket  # None once it was stopped
        if zap_socket is not None and int(zap_socket.get(zmq.EVENTS)) & zmq.POLLIN:
            asked = self._loop.create_task(self.handle_zap_message(self.zap_socket.recv_multipart()))
            asked.add_done_callback(lambda _: self._read())


class RemoteInterface(ZMQInterface):  # type: ignore[misc]  # the core is untyped
    """Requests from the client."""

    def __init__(self, options: Dict[str, Any]) -> None:
        super().__init__()
        self._loop = asyncio.get_event_loop()
        self.last_heard = self._loop.time()
        self._messages: "asyncio.Queue[Tuple[bytes, bytes, Dict[str, Any]]]" = asyncio.Queue()
        self._asked_by = (b"", b"")
        self.socket = BoundSocket(zmq.ROUTER, "tcp://*:*", self._take, **options)

    def _take(self, *frames: bytes) -> None:
        self.last_heard = self._loop.time()
        sender, turn, again, text = frames
        if not text:  # it only wants to know, and to let us know
            self.socket.send(sender, turn, b"")
            return
        try:
            request = request_in(text)
        except NoRequest as error:
            self.socket.send(sender, turn, json.dumps(Response.error(str(error)).to_dict()).encode())
            return
        if again == b"1":
            request["again"] = True
        self._messages.put_nowait((sender, turn, request))

    @override
    async def receive(self) -> Dict[str, Any]:
        sender, turn, request = await self._messages.get()
        self._asked_by = sender, turn
        return request

    @override
    async def reply(self, reply_msg: str) -> None:
        self.socket.send(*self._asked_by, reply_msg.encode())

    @override
    def close(self) -> None:
        self.socket.close()


def _hosts() -> List[str]:
    """Return this machine's names and addresses: which of them the client can reach, only the client can tell."""
    names = [socket.gethostname(), socket.getfqdn()]
    families: Callable[[Any], bool] = lambda found: found.family == socket.AF_INET  # noqa: E731
    found = [one.address for all_of_it in psutil.net_if_addrs().values() for one in filter(families, all_of_it)]
    loopback = [address for address in found if address.startswith("127.")]
    return list(dict.fromkeys([*names, *(address for address in found if address not in loopback), *loopback]))


_logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


@dataclass
class ClientWatch:
    """Ends the manager when its client has not been heard of for `seconds`.

    A manager that is let off goes on without a client; it ends when no job has been left for `idle_seconds`, so that
    it does not keep an allocation for nothing.
    """

    remote: Remote
    manager: Any
    seconds: float
    idle_seconds: float
    on_silence: Callable[[str], None]
    on_idle: Callable[[], None]
    look_for_handover: Callable[[], None]

    def start(self) -> None:
        """Look from now on."""
        self._loop = asyncio.get_event_loop()
        self._started_at = self._loop.time()
        self._look()

    def _look(self) -> None:
        try:
            self.look_for_handover()
        except OSError as error:  # of a shared file system, which may answer the next time
            _logger.warning("whether a client has left jobs for this manager is not known: %s", error)
        now = self._loop.time()
        silent = now - self.remote.last_heard
        if not self.manager.detached and silent > self.seconds:
            self.on_silence(f"its client has not been heard of for {silent:.0f} s")
        elif self.manager.detached and self.manager.is_all_jobs_finished and self._idle_for(now) > self.idle_seconds:
            _logger.info("nothing has been left to do for %g s", self.idle_seconds)
            self.on_idle()
        else:
            self._loop.call_later(_LOOK_SECONDS, self._look)

    def _idle_for(self, now: float) -> float:
        last: float = max(self._started_at, self.manager.last_end, self.remote.last_heard)
        return now - last
