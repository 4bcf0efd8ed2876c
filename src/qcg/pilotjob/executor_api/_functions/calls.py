"""The calls of a pool: what the hub knows of each, which wait for a worker, and what workers answer."""

from __future__ import annotations

import contextlib
import hmac
import json
import sys
import threading
from collections import deque
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any, Deque, Dict, List, Optional, Set, Tuple

import zmq

from qcg.pilotjob.executor_api._functions import messages
from qcg.pilotjob.executor_api._functions.future import FunctionFuture
from qcg.pilotjob.executor_api._functions.tracebacks import said, shown
from qcg.pilotjob.executor_api._shared.futures import copy_of_error
from qcg.pilotjob.executor_api.call_errors import CallFailed, CallUnreadable, RemoteTraceback, WorkerDied
from qcg.pilotjob.executor_api.errors import ExecutorClosed, QCGPJError

__all__ = ["Call", "Needs", "Waiting", "Worker", "death_of", "hello_in", "resolve", "resolve_raised"]


@dataclass(frozen=True)
class Needs:
    """Holds what a pool was asked for.

    Attributes:
        job: what every worker's description has beside its name and command; its execution is completed.
        python: the interpreter.
        most: how many workers there may be.
        ranks: how many processes a worker has.
        fresh: whether a worker serves one call only.
        idle_seconds: after which a worker that has nothing to do gives its cores back.
        retries: how often a call is made again whose worker has died.
        seconds: how long a call may take.
        all_ranks: whether the values of all ranks come back, or that of the first one.
    """

    job: Dict[str, Any]
    python: str
    most: int
    ranks: int
    fresh: bool
    idle_seconds: float
    retries: int
    seconds: Optional[float]
    all_ranks: bool


class Call:
    """One call: its pickle and its future."""

    __slots__ = ("died", "future", "is_over", "parcel")

    def __init__(self, parcel: messages.Parcel, future: FunctionFuture) -> None:
        self.parcel = parcel
        self.future = future
        self.died = 0  # how many workers have, over it
        self.is_over = False  # its future has an end, or is about to get one


@dataclass
class Worker:
    """A job that makes calls."""

    number: int
    job: Any = None
    ranks: Dict[int, bytes] = field(default_factory=dict)
    control: bytes = b""
    answers: Dict[int, Any] = field(default_factory=dict)
    calls: Deque[Call] = field(default_factory=deque)  # the first of them is being made
    messages: int = 0  # with calls
    sent: int = 0  # calls in the last of those
    paths: Tuple[str, str] = ("", "")
    is_ending: bool = False
    is_asked: bool = False  # for calls that have not begun
    serves_since: float = 0.0
    gives_way: bool = False  # to another job, when its call has ended
    look_at: Optional[float] = None  # when what has not begun is to be asked for
    end_at: Optional[float] = None  # when what it does, or does not, has to be over

    def __hash__(self) -> int:
        return self.number


class Waiting:
    """A queue of calls, with the lock that also protects which worker has which call, and who ends its future."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a pool may be collected, and so closed, wherever garbage is looked for
        self.closed = False
        self._broken: Optional[BaseException] = None
        self._open: Set[Call] = set()  # all whose futures have no end yet, wherever the calls are
        self._calls: Deque[Call] = deque()

    def __len__(self) -> int:
        return len(self._calls)

    def put(self, call: Call) -> None:
        """Add a call.

        Raises:
            ExecutorClosed: the pool is shut down.
            BrokenCall: the pool has failed.
        """
        with self.lock:
            if self._broken is not None:
                raise copy_of_error(self._broken)
            if self.closed:
                raise ExecutorClosed("cannot schedule new futures after shutdown of the pool or of its executor")
            self._calls.append(call)
            self._open.add(call)

    def close(self) -> None:
        """Take no more calls."""
        with self.lock:
            self.closed = True

    def take(self, most: int) -> List[Call]:
        """Take the first calls, but those that were cancelled; the futures of the others run from now on."""
        calls: List[Call] = []
        with self.lock:
            while self._calls and len(calls) < most:
                call = self._calls.popleft()
                if call.future._begin():
                    calls.append(call)
                else:
                    self._open.discard(call)
        return calls

    def again(self, call: Call) -> None:
        """Put the call of a worker in front of all others, unless the call is over: cancelled, or its time was."""
        with self.lock:
            if not call.is_over:
                call.future._begins_anew()
                self._calls.appendleft(call)

    def take_back(self, worker: Worker, count: int) -> None:
        """Take the last calls of a worker, which have not begun, back for other workers."""
        with self.lock:
            for _ in range(count):
                self.again(worker.calls.pop())

    def claim(self, call: Call) -> bool:
        """Return whether it is for the caller to give the call's future its end: for the first that asks.

        When that is done, `forget` has to be told. Should it not come to that, `break_` ends the future.
        """
        with self.lock:
            is_first, call.is_over = not call.is_over, True
        return is_first

    def forget(self, call: Call) -> None:
        """Take note that the future of a call has its end."""
        self._open.discard(call)

    def end(self, call: Call, error: BaseException) -> None:
        """Give the future of a call an exception as its end, unless it has one."""
        if self.claim(call):
            call.future._fail(copy_of_error(error))
            self.forget(call)

    def break_(self, error: BaseException) -> None:
        """Take no more calls, and give the futures of all that there are `error` as their end."""
        with self.lock:
            self.closed, self._broken = True, error
            self._calls.clear()
            left = list(self._open)
            self._open.clear()
            for call in left:
                call.is_over = True
        for call in left:
            call.future._begin()  # a cancelled one is told of to those that wait for it
            call.future._fail(copy_of_error(error))

    def fail(self, error: BaseException, most: Optional[int] = None) -> None:
        """Fail the first calls, or all."""
        for call in self.take(len(self) if most is None else most):
            self.end(call, error)

    def cancel_all_but(self, kept: int) -> None:
        """Cancel the calls, except the first ones."""
        with self.lock:
            cancelled = list(self._calls)[kept:]
        for call in cancelled:
            call.future.cancel()


_MOST_STDERR = 65_536  # bytes that an exception keeps; the future has the rest
_CAUSE: Any = BaseException.__dict__["__cause__"]


def hello_in(message: List[bytes], token: str) -> Dict[str, Any]:
    """Return what a worker says of itself, nothing when it is not one of ours."""
    if (
        len(message) != 3
        or message[0] not in (messages.HELLO, messages.CONTROL)
        or not hmac.compare_digest(message[1], token.encode())
    ):
        return {}
    return dict(json.loads(message[2]))


def resolve(future: FunctionFuture, answers: Dict[int, Any], *, all_ranks: bool) -> None:
    """Give a future the value, or the exception, that the ranks of its worker have answered with."""
    failed = [rank for rank, (kind, _, _) in sorted(answers.items()) if kind == messages.RAISED]
    if failed:
        resolve_raised(future, answers[failed[0]][2])
        return
    try:
        values = [messages.unpacked(answers[rank][2][1:]) for rank in (sorted(answers) if all_ranks else [0])]
    except BaseException as error:  # noqa: BLE001  # whatever the unpickling of somebody's class may raise
        unreadable = CallUnreadable(f"what the function has returned cannot be unpickled here: {said(repr, error)}")
        unreadable.__cause__ = error
        future._fail(unreadable)
    else:
        future._resolve(values if all_ranks else values[0])


def resolve_raised(future: FunctionFuture, answer: List["zmq.Frame"]) -> None:
    """Give a future the exception that one rank has answered with."""
    words, *frames = answer
    future._fail(_exception_of(json.loads(words.bytes), frames, future))


def _exception_of(words: Dict[str, Any], frames: List["zmq.Frame"], future: FunctionFuture) -> BaseException:
    error: Any = None
    if words["stage"] == "arguments":
        by = words.get("rank", "the worker")
        error = CallUnreadable(f"the call cannot be unpickled by {by}: {words['type']}: {words['text']}")
    elif frames:
        with contextlib.suppress(BaseException):  # an exception that cannot be unpickled is told in words
            error = messages.unpacked(frames)
    failure: BaseException
    where = words.get("rank", "")
    text = f"{words['type']}: {words['text']}" + (f" ({where})" if where else "")
    failure = error if isinstance(error, BaseException) else CallFailed(text)
    remote = f"{where}:\n{shown(words)}" if where else shown(words)
    # as raise ... from does it: the class may have a way of its own to set attributes, or none when it is frozen
    _CAUSE.__set__(failure, RemoteTraceback(remote, _stderr_of(future)))
    if where and sys.version_info >= (3, 11):
        with contextlib.suppress(Exception):  # a class may forbid it, and the cause tells it too
            failure.add_note(f"raised by {where}")
    return failure


def _stderr_of(future: FunctionFuture) -> str:
    try:
        return future._end_of_stderr(_MOST_STDERR)
    except OSError as error:  # somebody has removed the file
        return f"not to be had: {error}"


def death_of(worker: Worker, what: str) -> BaseException:
    """Return the exception that tells how a worker's job has ended."""
    try:
        worker.job.raise_for_status(0)
    except CancelledError:
        return WorkerDied(f"{what}: its job was cancelled")
    except QCGPJError as error:
        died: BaseException = WorkerDied(f"{what}\n{error}")
        died.__cause__ = error
        return died
    return WorkerDied(f"{what}, with exit code 0, as after os._exit(0)")
