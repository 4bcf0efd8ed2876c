"""``Executor.map`` with ``buffersize``, which Python has from 3.14 on: for executors on every Python."""

from __future__ import annotations

import itertools
import time
from collections import deque
from concurrent.futures import Executor, Future
from typing import Any, Callable, Deque, Iterable, Iterator, Optional, Sequence, Tuple

__all__ = ["buffered_map"]


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
