"""What workers say, and what their silence says, in the words of this side."""

from __future__ import annotations

import contextlib
import hmac
import json
import sys
from concurrent.futures import CancelledError
from typing import Any, Dict, List

import zmq

from qcg.pilotjob.executor_api._functions import messages
from qcg.pilotjob.executor_api._functions.calls import Worker
from qcg.pilotjob.executor_api._functions.future import FunctionFuture
from qcg.pilotjob.executor_api._functions.tracebacks import said, shown
from qcg.pilotjob.executor_api.call_errors import CallFailed, CallUnreadable, RemoteTraceback, WorkerDied
from qcg.pilotjob.executor_api.errors import QCGPJError

__all__ = ["death_of", "hello_in", "resolve", "resolve_raised"]

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
