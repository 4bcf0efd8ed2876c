"""The core's client, connected to the executor's manager: for requests that the executor has no method for."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any, Callable, Dict, Optional, Sequence, Union

import zmq
from qcg.pilotjob.api.errors import ConnectionError as CoreConnectionError
from qcg.pilotjob.api.manager import Manager
from typing_extensions import override

from qcg.pilotjob.executor_api._client.dispatcher import Dispatcher

__all__ = ["ConnectedManager"]

_REPLY_SECONDS = 60.0
_LOOK_MILLISECONDS = 100  # how soon a request notices that the manager has ended


class ConnectedManager(Manager):  # type: ignore[misc]  # the core is untyped
    """A ``Manager`` of the core that threads may share and that a dead manager process does not hang.

    Mends C4 (no lock, no timeout, unusable after an interrupt) and C25 (it deletes ``<wd>/api.log``, and shares one
    global logger). Can go when the core does.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._lock = threading.RLock()
        self._dispatcher = dispatcher
        super().__init__(dispatcher.link.address)

    @override
    def _setup_logging(self, cfg: Dict[str, Any]) -> None:
        self.log_handler = logging.NullHandler()

    @override
    def _send_and_validate_result(self, data: Dict[str, Any], valid_method: Optional[Callable[..., Any]] = None) -> Any:
        self._dispatcher.flush()  # what was submitted before has to be there
        with self._lock:
            self._assure_connected()
            self._zmq_socket.setsockopt(zmq.LINGER, 0)
            self._zmq_socket.setsockopt(zmq.REQ_RELAXED, 1)  # an interrupted request does not spoil the next one
            self._zmq_socket.setsockopt(zmq.REQ_CORRELATE, 1)
            self._zmq_socket.send(json.dumps(data).encode())
            self._await_reply()
            reply = json.loads(self._zmq_socket.recv())
        return (valid_method or Manager._validate_response)(reply)

    def _await_reply(self) -> None:
        deadline = time.monotonic() + _REPLY_SECONDS
        while not self._zmq_socket.poll(_LOOK_MILLISECONDS):
            if self._dispatcher.has_ended or time.monotonic() > deadline:
                raise CoreConnectionError(f"the manager at {self._address} does not answer")

    @override
    def remove(self, names: Union[str, Sequence[str]]) -> None:
        super().remove(names)
        self._dispatcher.forget([names] if isinstance(names, str) else list(names))

    @override
    def finish(self) -> None:
        """Ask the manager to cancel all jobs and end."""
        self._send_and_validate_result({"request": "finish"})

    def close(self) -> None:
        """Close the sockets."""
        with self._lock:
            self._connected = False
            self._zmq_ctx.destroy(linger=0)
