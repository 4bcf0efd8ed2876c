"""Connect an executor to a manager: one function for each kind, between which ``qcgpj_executor`` chooses.

Those for allocations of the executor's own are in ``_allocation``: own_allocation.py and several.py.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import Any, Callable, Union

from qcg.pilotjob.executor_api._client.answers import ExecutorSource
from qcg.pilotjob.executor_api._client.connection import Connection
from qcg.pilotjob.executor_api._client.dispatcher import Attach, Dispatcher
from qcg.pilotjob.executor_api._client.links import BareCore, OthersProcess, OwnProcess, link_to_directory
from qcg.pilotjob.executor_api._client.own_manager import ManagerProcess

__all__ = [
    "MadeClient",
    "connect_bare_core",
    "connect_dispatcher",
    "connect_others_manager",
    "connect_own_process",
    "remote_client",
]


class MadeClient:
    """Makes the client of the core when it is first asked for. Any thread may ask."""

    def __init__(self, make: Callable[[Dispatcher, Attach], Any]) -> None:
        self._make = make
        self._lock = threading.RLock()  # a signal handler may ask for the same
        self._client: Any = None

    def get(self, dispatcher: Dispatcher, attach: Attach) -> Any:
        """Return the client."""
        with self._lock:
            if self._client is None:
                made = self._make(dispatcher, attach)
                if self._client is None:
                    self._client = made
                else:  # a signal handler has made one meanwhile
                    made.close()
            return self._client

    def close(self) -> None:
        """Close the client, if it was made."""
        with self._lock:
            if self._client is not None:
                self._client.close()


class GivenClient:
    """Holds the client of the core that the user has given."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def get(self, dispatcher: Dispatcher, attach: Attach) -> Any:  # noqa: ARG002  # it has a connection of its own
        """Return what was given."""
        return self._manager

    def close(self) -> None:
        """Do nothing: it is the user's."""


def connect_own_process(process: ManagerProcess) -> Connection:
    """Connect to a manager process of the executor's own, when it is ready.

    Raises:
        ManagerStartError: it is not ready in time.
    """
    process.await_ready()
    return connect_dispatcher(Dispatcher(OwnProcess(process), MadeClient(_connected_client)))


def connect_others_manager(directory: Union[str, "os.PathLike[str]"]) -> Connection:
    """Connect to the manager that another executor has started, here or in an allocation.

    Raises:
        InvalidOption: there is no directory of a manager, or it is another user's.
        ManagerDied: the manager has ended, or is out of reach.
    """
    link = link_to_directory(directory)
    if isinstance(link, OthersProcess):
        return connect_dispatcher(Dispatcher(link, MadeClient(_connected_client)))
    from qcg.pilotjob.executor_api._client.remote_dispatcher import RemoteDispatcher

    return connect_dispatcher(RemoteDispatcher(link, MadeClient(remote_client)))


def connect_bare_core(manager: Any) -> Connection:
    """Connect to what a ``Manager`` or ``LocalManager`` of the core is connected to.

    Raises:
        InvalidOption: `manager` is neither, or it does not publish events.
    """
    return connect_dispatcher(Dispatcher(BareCore(manager), GivenClient(manager)))


def connect_dispatcher(dispatcher: Dispatcher) -> Connection:
    """Start `dispatcher`, and return the connection that uses it."""
    return Connection(dispatcher.start(), partial(ExecutorSource, dispatcher))


def remote_client(dispatcher: Dispatcher, attach: Attach) -> Any:
    """Return the client of the core for a manager on another machine."""
    from qcg.pilotjob.executor_api._client.core_client import RemoteManager

    return RemoteManager(dispatcher, attach)


def _connected_client(dispatcher: Dispatcher, attach: Attach) -> Any:
    from qcg.pilotjob.executor_api._client.core_client import ConnectedManager

    return ConnectedManager(dispatcher, attach)
