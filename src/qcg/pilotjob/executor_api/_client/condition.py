"""What a future waits with: a ``threading.Condition`` for which nothing is made until somebody waits.

Most futures are never waited for one by one, and a condition is more than half of the memory of a future that has one.
"""

from __future__ import annotations

import threading
from _thread import RLock  # threading.RLock is a function that makes one of these
from typing import Optional

__all__ = ["Condition"]


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
