"""End dispatchers that nobody has ended: at the interpreter's exit, and in a forked child."""

from __future__ import annotations

import _thread
import os
import threading
import weakref
from typing import Any

from qcg.pilotjob.executor_api.errors import ExecutorClosed, ManagerStartError

__all__ = ["refuse_start", "register", "unregister"]

_lock = threading.RLock()  # a signal handler may make an executor while one is made
_exiting = False
_dispatchers: "weakref.WeakSet[Any]" = weakref.WeakSet()


def refuse_start() -> None:
    """Raise when no executor can be started.

    Raises:
        ExecutorClosed: the interpreter is shutting down.
        ManagerStartError: gevent or eventlet has replaced threads by its own, of which one would hold up all others.
    """
    if _exiting:
        raise ExecutorClosed("the interpreter is shutting down: no executor can be started any more")
    library = str(_thread.start_new_thread.__module__).partition(".")[0]
    if library in ("gevent", "eventlet"):
        raise ManagerStartError(
            f"{library} has replaced this program's threads, and an executor needs real ones\n"
            "  next: use the executor in a process in which nothing was patched"
        )


def register(dispatcher: Any) -> None:
    """Look after `dispatcher`.

    Raises:
        ExecutorClosed: the interpreter is shutting down.
    """
    with _lock:
        refuse_start()
        _dispatchers.add(dispatcher)


def unregister(dispatcher: Any) -> None:
    """Look after `dispatcher` no more: it has ended."""
    with _lock:  # the interpreter's exit goes through them
        _dispatchers.discard(dispatcher)


def _leave_at_exit() -> None:
    """Wait for all jobs of executors that were never shut down, as ``concurrent.futures`` does at exit."""
    global _exiting  # noqa: PLW0603  # the interpreter exits once
    with _lock:
        _exiting = True
        dispatchers = list(_dispatchers)
    for dispatcher in dispatchers:
        dispatcher.leave_at_exit()
    for dispatcher in dispatchers:
        dispatcher.join()


def _forget_in_child() -> None:
    global _lock  # noqa: PLW0603  # a thread that the child does not have may hold it
    _lock = threading.RLock()  # a signal handler may make an executor while one is made
    for dispatcher in list(_dispatchers):
        dispatcher.forget_in_child()
    _dispatchers.clear()


os.register_at_fork(after_in_child=_forget_in_child)

# The interpreter joins threads before it runs atexit's functions; this is the hook that concurrent.futures has too.
threading._register_atexit(_leave_at_exit)  # type: ignore[attr-defined]
