"""The manager's two sockets, private: files in a directory that only the owner can enter."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, Dict, Optional

import zmq
from qcg.pilotjob.publisher import EventTopic, StatusPublisher
from qcg.pilotjob.response import Response
from qcg.pilotjob.zmqinterface import ZMQInterface
from zmq.asyncio import Context

from qcg.pilotjob.executor_api._client.wire import HELLO
from qcg.pilotjob.executor_api._overriding import override

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
    """The PUB socket, as an XPUB that greets each new subscriber.

    Mends C5, and C3 (events beyond the high-water mark are dropped). The greeting tells a subscriber that from now on
    it misses nothing. Can go when the core can bind to an address it is given and has no high-water mark.
    """

    directory: Path

    @override
    def setup(self, conf: Dict[Any, Any]) -> None:
        self.address = self.external_address = f"ipc://{self.directory / EVENTS}"
        self.zmq_ctx = Context.instance()
        self.socket = self.zmq_ctx.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.socket.bind(self.address)
        self._greeter: Optional["asyncio.Task[None]"] = asyncio.ensure_future(self._greet())

    async def _greet(self) -> None:
        while True:
            subscription = await self.socket.recv()
            if subscription == b"\x01" + HELLO.encode():
                self.socket.send_string(f"{HELLO} {{}}")

    @override
    def publish(self, topic: EventTopic, data: Dict[str, Any]) -> None:
        self.socket.send_string(f"{topic.value} {json.dumps(data)}")

    @override
    async def stop(self) -> None:
        if self._greeter:
            self._greeter.cancel()
            await asyncio.gather(self._greeter, return_exceptions=True)
            self._greeter = None
            self.socket.close()
