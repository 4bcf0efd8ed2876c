"""The manager's two sockets, private: files in a directory that only the owner can enter."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, Dict, Set

import zmq
from qcg.pilotjob.publisher import EventTopic, StatusPublisher
from qcg.pilotjob.response import Response
from qcg.pilotjob.zmqinterface import ZMQInterface
from typing_extensions import override
from zmq.asyncio import Context

from qcg.pilotjob.executor_api._client.wire import HELLO

_logger = logging.getLogger(__name__)

# The ":0" is there for the core's client, which appends a port to every address that has none.
REQUESTS = "manager:0"
EVENTS = "events:0"
_LONGEST_PATH = 107  # sun_path has 108 bytes, one of them for the end
LINGER = 300  # milliseconds in which a reply or an event can still leave when the process ends


def make_directory(last_resort: str) -> Path:
    """Make the private directory for the sockets where temporary files go, unless its path is too long for them.

    Raises:
        OSError: no directory will do.
    """
    longest = _LONGEST_PATH - len(f"/qcgpj-12345678/{REQUESTS}")
    for parent in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/dev/shm", last_resort]):
        if len(os.fsencode(parent)) > longest:
            continue
        with contextlib.suppress(OSError):
            return Path(tempfile.mkdtemp(prefix="qcgpj-", dir=parent))
    raise OSError(
        f"no directory for the manager's sockets: none of {tempfile.gettempdir()}, /tmp, /dev/shm can be written to "
        f"and has a path of at most {longest} bytes; set TMPDIR to one that is"
    )


class RequestInterface(ZMQInterface):  # type: ignore[misc]  # the core is untyped
    """The REP socket.

    Mends C5 (a TCP port open to every user of every host) and C7 (one message that is not JSON ends the service).
    Can go when the core can bind to an address it is given and answers malformed messages.
    """

    directory: Path

    @override
    def setup(self, conf: Dict[Any, Any]) -> None:
        self.address = self.real_address = self.external_address = f"ipc://{self.directory / REQUESTS}"
        self.zmq_ctx = Context.instance()
        self.socket = self.zmq_ctx.socket(zmq.REP)
        self.socket.bind(self.address)

    @override
    async def receive(self) -> Dict[str, Any]:
        while True:
            message = await self.socket.recv()
            try:
                request = json.loads(message)
            except (ValueError, RecursionError) as error:
                await self.reply(Response.error(f"the request is not JSON: {error}").to_json())
                continue
            if isinstance(request, dict):
                return request
            await self.reply(Response.error("the request is not a JSON object").to_json())


class EventPublisher(StatusPublisher):  # type: ignore[misc]  # the core is untyped
    """The PUB socket, as an XPUB that greets each new subscriber, and sends only what somebody has subscribed to.

    Mends C5, and C3 (events beyond the high-water mark are dropped). The greeting tells a subscriber that from now on
    it misses nothing. Can go when the core can bind to an address it is given and has no high-water mark.
    """

    directory: Path

    @override
    def setup(self, conf: Dict[Any, Any]) -> None:
        self.address = self.external_address = f"ipc://{self.directory / EVENTS}"
        context: Any = Context.instance()
        # a plain one: without a high-water mark sending never waits
        self.socket: "zmq.Socket[bytes]" = context.socket(zmq.XPUB, socket_class=zmq.Socket)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.socket.bind(self.address)
        self._subscribed: Set[str] = set()
        self._loop = asyncio.get_event_loop()
        self._loop.add_reader(self.socket.fileno(), self._read_subscriptions)

    def _read_subscriptions(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                subscription = self.socket.recv(zmq.NOBLOCK)
                if subscription.startswith(b"\x01"):
                    topic = subscription[1:].decode()
                    self._subscribed.add(topic)
                    if topic == HELLO:
                        self.socket.send_string(f"{HELLO} {{}}")

    @override
    def publish(self, topic: EventTopic, data: Dict[str, Any]) -> None:
        if not topic.value.startswith(tuple(self._subscribed)):
            return
        self.socket.send_string(f"{topic.value} {json.dumps(data)}")
        if int(self.socket.get(zmq.EVENTS)) & zmq.POLLIN:  # of which sending has made the descriptor forget
            self._read_subscriptions()

    @override
    async def stop(self) -> None:
        if not self.socket.closed:
            self._loop.remove_reader(self.socket.fileno())
            self.socket.close()
