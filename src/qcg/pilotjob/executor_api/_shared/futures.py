"""Share among the futures of jobs and of calls: their condition, the threads that run callbacks, ``map``.

Most futures are never waited for one by one, and a condition is more than half of the memory of a future that has one.

``Future`` logs what a callback raises, but not SystemExit, KeyboardInterrupt and the like: they end the thread that has
resolved the future. In a thread of the user's that is what they are for. In a thread of ours it would be the end of
all jobs and calls, because of one callback, so there they are logged too.
"""

from __future__ import annotations

import copy
import itertools
import logging
import os
import threading
import time
from _thread import RLock  # threading.RLock is a function that makes one of these
from collections import deque
from concurrent.futures import Executor, Future
from typing import Any, Callable, Deque, Iterable, Iterator, List, Optional, Sequence, Tuple

__all__ = ["Condition", "GuardsCallbacks", "ResolvingThread", "buffered_map", "copy_of_error", "may_wait"]


class Condition(RLock):  # type: ignore[misc]  # final in typeshed alone: CPython lets it have subclasses
    """A lock, with what ``concurrent.futures`` asks of a future's condition."""

    __slots__ = ("_waited_for",)

    def __init__(self) -> None:
        self._waited_for: Optional[threading.Condition] = None

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Wait for `notify_all`, in the hands of whom this lock is; return whether it came in time."""
        if self._waited_for is None:
            self._waited_for = threading.Condition(self)
        return self._waited_for.wait(timeout)

    def notify_all(self) -> None:
        """Wake everybody, in the hands of whom this lock is."""
        waited_for, self._waited_for = self._waited_for, None  # which holds this lock in turn
        if waited_for is not None:
            waited_for.notify_all()


_logger = logging.getLogger("concurrent.futures")  # where Future logs what a callback raises


class ResolvingThread(threading.Thread):
    """A thread of this package's in which futures are resolved."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._pid = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is the thread's process: a child that is forked in a callback has a copy, which has to end."""
        return self._pid == os.getpid()


def may_wait() -> bool:
    """Return whether the current thread may wait for futures and threads: those of this package's must not."""
    thread = threading.current_thread()
    return not (isinstance(thread, ResolvingThread) and thread.is_here)


class GuardsCallbacks:
    """For a ``Future`` of which no callback ends a `ResolvingThread`."""

    __slots__ = ()

    _done_callbacks: List[Callable[[Any], Any]]

    def _invoke_callbacks(self) -> None:
        for callback in self._done_callbacks:
            try:
                callback(self)
            except Exception:
                _logger.exception("exception calling callback for %r", self)
            except BaseException:
                if may_wait():
                    raise
                _logger.exception("exception calling callback for %r; the thread of the executor goes on", self)


def buffered_map(
    executor: Executor,
    fn: Callable[..., Any],
    iterables: Sequence[Iterable[Any]],
    *,
    timeout: Optional[float],
    buffersize: int,
) -> Iterator[Any]:
    """Submit the first `buffersize` calls, and then one more for each value that is yielded; yield values in order.

    The iterator keeps the executor. Python's own only looks whether it is still there, and when it is not, ends without
    the values of all the calls that were to come, as if there were none.

    Raises:
        TypeError: `buffersize` is no integer.
        ValueError: `buffersize` is less than 1.
    """
    if not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize < 1:
        raise ValueError("buffersize must be None or > 0")
    end = None if timeout is None else time.monotonic() + timeout
    calls = zip(*iterables)
    futures = deque(executor.submit(fn, *arguments) for arguments in itertools.islice(calls, buffersize))
    return _values(executor, fn, calls, futures, end)


def _values(
    executor: Executor,
    fn: Callable[..., Any],
    calls: Iterator[Tuple[Any, ...]],
    futures: Deque[Future[Any]],
    end: Optional[float],
) -> Iterator[Any]:
    try:
        while futures:
            yield _value_or_cancel(futures.popleft(), None if end is None else end - time.monotonic())
            for arguments in itertools.islice(calls, 1):
                futures.append(executor.submit(fn, *arguments))
    finally:
        for future in futures:
            future.cancel()


def _value_or_cancel(future: Future[Any], timeout: Optional[float]) -> Any:
    try:
        try:
            return future.result(timeout)
        finally:
            future.cancel()
    finally:
        del future  # the traceback of an exception holds this frame: it must not hold the future


def copy_of_error(error: BaseException) -> BaseException:
    """Return a copy: one that is raised again and again grows, and holds what all those frames hold."""
    try:
        copied = copy.copy(error).with_traceback(error.__traceback__)
        copied.__cause__ = error.__cause__
    except Exception:  # noqa: BLE001  # not every class can be copied, or changed; then all get the same
        return error
    return copied
