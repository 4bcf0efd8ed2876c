"""The core's client, connected to the executor's manager: for requests that the executor has no method for."""

from __future__ import annotations

import logging
import threading
from typing import Any, Callable, Dict, Optional, Sequence, Union

import zmq
from qcg.pilotjob.api.errors import ConnectionError as CoreConnectionError
from qcg.pilotjob.api.manager import Manager
from typing_extensions import override

from qcg.pilotjob.executor_api._client.dispatcher import Dispatcher

__all__ = ["ConnectedManager"]

_REPLY_MILLISECONDS = 60_000


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
            try:
                self._zmq_socket.setsockopt(zmq.LINGER, 0)
                self._zmq_socket.setsockopt(zmq.RCVTIMEO, _REPLY_MILLISECONDS)
                self._zmq_socket.setsockopt(zmq.REQ_RELAXED, 1)
                self._zmq_socket.setsockopt(zmq.REQ_CORRELATE, 1)
                return super()._send_and_validate_result(data, valid_method)
            except zmq.Again:
                raise CoreConnectionError(f"the manager at {self._address} does not answer") from None

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
