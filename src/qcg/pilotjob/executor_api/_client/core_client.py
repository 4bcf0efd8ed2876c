"""The core's client, connected to the executor's manager: for requests that the executor has no method for."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import zmq
from qcg.pilotjob.api.errors import ConnectionError as CoreConnectionError
from qcg.pilotjob.api.errors import TimeoutElapsed
from qcg.pilotjob.api.manager import Manager

from qcg.pilotjob.executor_api._client.dispatcher import Dispatcher
from qcg.pilotjob.executor_api._client.ended_jobs import Ends
from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api._shared.core_names import OF_CLIENT, refuse_changed_core
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api.errors import ExecutorClosed, JobUnknown, ManagerDied
from qcg.pilotjob.executor_api.jobs import FINAL_STATES

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture

__all__ = ["ConnectedManager", "RemoteManager"]

_ELSEWHERE = "tcp://elsewhere:0"
_REPLY_SECONDS = 60.0
_LOOK_MILLISECONDS = 100  # how soon a request notices that the manager has ended
_LOOK_AT_RECORD_SECONDS = 0.02
_LOOK_SECONDS = 0.2  # between questions for iterations, whose ends the dispatcher is not told


class ConnectedManager(Manager):  # type: ignore[misc]  # the core is untyped
    """A ``Manager`` of the core that threads may share and that a dead manager process does not hang.

    Mends C3 (a lost event blocks ``wait4`` for ever), C4 (no lock, no timeout, unusable after an interrupt) and C25 (it
    deletes ``<wd>/api.log``, and shares one global logger). Can go when the core does.
    """

    def __init__(self, dispatcher: Dispatcher, attach: Callable[[Sequence[str], Optional[float]], QCGPJFuture]) -> None:
        refuse_changed_core(OF_CLIENT)
        self._lock = threading.RLock()
        self._is_asking = False
        self._dispatcher = dispatcher
        self._ends = Ends(dispatcher.link.report.path) if dispatcher.link.report is not None else None
        self._attach = attach
        super().__init__(dispatcher.link.address or _ELSEWHERE)

    @override
    def _setup_logging(self, cfg: Dict[str, Any]) -> None:
        self.log_handler = logging.NullHandler()

    @override
    def _send_and_validate_result(self, data: Dict[str, Any], valid_method: Optional[Callable[..., Any]] = None) -> Any:
        self._dispatcher.flush()  # what was submitted before has to be there
        with self._lock:
            if self._is_asking:  # a signal handler interrupts a request: on one socket the first would have no reply
                return self._ask_dispatcher(data, valid_method)
            self._is_asking = True
            try:
                reply = self._reply_to(data)
            finally:
                self._is_asking = False
        return (valid_method or Manager._validate_response)(reply)

    def _reply_to(self, data: Dict[str, Any]) -> Any:
        self._assure_connected()
        self._zmq_socket.setsockopt(zmq.LINGER, 0)
        self._zmq_socket.setsockopt(zmq.REQ_RELAXED, 1)  # an interrupted request does not spoil the next one
        self._zmq_socket.setsockopt(zmq.REQ_CORRELATE, 1)
        self._zmq_socket.send(json.dumps(data).encode())
        self._await_reply()
        return json.loads(self._zmq_socket.recv())

    def _ask_dispatcher(self, data: Dict[str, Any], valid_method: Optional[Callable[..., Any]]) -> Any:
        if self._dispatcher.is_current_thread:
            raise CoreConnectionError("the manager cannot be asked here in a done-callback: it would hang")
        try:
            reply = self._dispatcher.ask(json.dumps(data).encode()).reply.result(_REPLY_SECONDS)
        except FutureTimeoutError:
            raise CoreConnectionError(f"the manager has not answered for {_REPLY_SECONDS:g} s") from None
        return (valid_method or Manager._validate_response)(reply)

    def _await_reply(self) -> None:
        deadline = time.monotonic() + _REPLY_SECONDS
        while not self._zmq_socket.poll(_LOOK_MILLISECONDS):
            if self._dispatcher.has_ended or time.monotonic() > deadline:
                raise CoreConnectionError(f"the manager at {self._address} does not answer")

    @override
    def _connect(self) -> None:
        """Connect for requests only: events that nobody takes would be kept without end."""
        self._disconnect()
        self._zmq_socket = self._zmq_ctx.socket(zmq.REQ)
        self._zmq_socket.connect(self._address)
        self._publisher_address = self._dispatcher.link.events
        self._connected = True

    @override
    def wait4(self, names: Union[str, Sequence[str]], timeout: Optional[float] = None) -> Dict[str, str]:
        """Wait for the ends of jobs and iterations, and return their states.

        Raises:
            TimeoutElapsed: they have not all ended after `timeout` seconds.
            ConnectionError: (the core's) one of them is unknown, or the manager has gone.
        """
        names = [names] if isinstance(names, str) else list(names)
        deadline = None if timeout is None else time.monotonic() + timeout
        states = self._await_jobs([name for name in names if ":" not in name], deadline)
        states.update(self._await_iterations([name for name in names if ":" in name], deadline))
        return states

    def _await_jobs(self, names: List[str], deadline: Optional[float]) -> Dict[str, str]:
        if not names:
            return {}
        try:
            self._dispatcher.flush(_seconds_until(deadline))
            future = self._attach(names, _seconds_until(deadline))
            return future.result(_seconds_until(deadline))
        except CancelledError:
            return future.status()
        except FutureTimeoutError as error:
            raise TimeoutElapsed(str(error)) from None
        except (JobUnknown, ManagerDied, ExecutorClosed) as error:
            raise CoreConnectionError(str(error)) from error

    def _await_iterations(self, names: List[str], deadline: Optional[float]) -> Dict[str, str]:
        while names:
            states = protocol.states({"data": self._answer({"request": "jobStatus", "jobNames": names}, deadline)})
            if all(state in FINAL_STATES for state in states.values()):
                return states
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutElapsed(f"{', '.join(names)}: not all have ended")
            time.sleep(_LOOK_SECONDS)
        return {}

    def _answer(self, request: Dict[str, Any], deadline: Optional[float]) -> Dict[str, Any]:
        """Return the manager's answer to `request`.

        Raises:
            TimeoutElapsed: it has not come by `deadline`.
        """
        left = _seconds_until(deadline)
        if left is None or self._dispatcher.is_current_thread:
            return dict(self._send_and_validate_result(request))
        try:
            reply = self._dispatcher.ask(json.dumps(request).encode()).reply.result(min(left, _REPLY_SECONDS))
        except FutureTimeoutError:
            raise TimeoutElapsed(f"the manager has not answered for {min(left, _REPLY_SECONDS):g} s") from None
        except (ManagerDied, ExecutorClosed) as error:
            raise CoreConnectionError(str(error)) from error
        return dict(Manager._validate_response(reply))

    @override
    def wait4all(self, timeout_secs: Optional[float] = None) -> None:
        """Wait until every job that the manager has has ended.

        Raises:
            TimeoutElapsed: they have not all ended after `timeout_secs` seconds.
        """
        deadline = None if timeout_secs is None else time.monotonic() + timeout_secs
        while True:
            jobs = self._answer({"request": "listJobs"}, deadline)["jobs"]
            names = [name for name, job in jobs.items() if job["status"] not in FINAL_STATES]
            if not names:
                return
            self._await_jobs(names, deadline)

    @override
    def wait4_any_job_finish(self, timeout_secs: Optional[float] = None) -> Tuple[str, str]:
        """Return the name and the state of the next job or iteration that ends; none is missed since the connection.

        They are read from the manager's record.

        Raises:
            TimeoutElapsed: none has ended after `timeout_secs` seconds.
            ConnectionError: (the core's) the manager has gone.
        """
        deadline = None if timeout_secs is None else time.monotonic() + timeout_secs
        while True:
            has_ended = self._dispatcher.has_ended
            with self._lock:
                self._assure_connected()
                end = self._ends.next() if self._ends is not None else None
            if end is not None:
                return end
            if has_ended:
                raise CoreConnectionError(f"the manager at {self._address} has ended")
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutElapsed(f"no job has ended within {timeout_secs} s")
            time.sleep(_LOOK_AT_RECORD_SECONDS)

    @override
    def remove(self, names: Union[str, Sequence[str]]) -> None:
        """Forget jobs that have ended, all or none; their names can be used again.

        Raises:
            ConnectionError: (the core's) one is unknown, has not ended, or iterations wait for its iterations.
        """
        names = [names] if isinstance(names, str) else list(names)
        done = self._send_and_validate_result({"request": "removeJob", "jobNames": names}, _removed)
        self._dispatcher.forget(names, done.get("submissions"))

    @override
    def finish(self) -> None:
        """Ask the manager to cancel all jobs and end."""
        self._send_and_validate_result({"request": "finish"})

    def close(self) -> None:
        """Close the sockets."""
        with self._lock:
            self._connected = False
            self._zmq_ctx.destroy(linger=0)


def _seconds_until(deadline: Optional[float]) -> Optional[float]:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _removed(reply: Any) -> Dict[str, Any]:
    """Return what was removed.

    Raises:
        ConnectionError: (the core's) something was not; a manager of the bare core tells so beside a success.
    """
    data: Dict[str, Any] = Manager._validate_response(reply)
    if data.get("errors"):
        raise CoreConnectionError(f"Request failed - {'; '.join(map(str, data['errors'].values()))}")
    return data


class RemoteManager(ConnectedManager):
    """The same for a manager on another machine, which is talked to by the dispatcher alone."""

    @override
    def _connect(self) -> None:
        self._connected = True

    @override
    def _send_and_validate_result(self, data: Dict[str, Any], valid_method: Optional[Callable[..., Any]] = None) -> Any:
        if self._dispatcher.is_current_thread:
            raise CoreConnectionError("a manager on another machine cannot be asked in a done-callback: it would hang")
        return self._ask_dispatcher(data, valid_method)

    @override
    def wait4_any_job_finish(self, timeout_secs: Optional[float] = None) -> Tuple[str, str]:
        raise CoreConnectionError("a manager on another machine tells its events to the executor; use as_completed()")
