"""Threads that resolve futures, and so run the callbacks that users have added to these.

``Future`` logs what a callback raises, but not SystemExit, KeyboardInterrupt and the like: they end the thread that has
resolved the future. In a thread of the user's that is what they are for. In a thread of ours it would be the end of
all jobs and calls, because of one callback, so there they are logged too.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any, Callable, List

__all__ = ["GuardsCallbacks", "ResolvingThread", "may_wait"]

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
