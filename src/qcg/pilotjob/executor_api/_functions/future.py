"""The future of a call."""

from __future__ import annotations

import os
from concurrent.futures import Future, InvalidStateError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, PENDING, RUNNING
from pathlib import Path
from typing import Any, Callable, Optional, Sequence, Tuple

from qcg.pilotjob.executor_api._shared.futures import GuardsCallbacks
from qcg.pilotjob.executor_api._shared.overriding import override

__all__ = ["FunctionFuture"]


class FunctionFuture(GuardsCallbacks, Future[Any]):
    """The future of a call, as ``concurrent.futures`` has them, except that `cancel` ends a call that runs.

    Attributes:
        stdout: what the call has printed, when it has ended.
        stderr: what it has written to standard error.
    """

    def __init__(self, cancel_running: Callable[["FunctionFuture"], bool]) -> None:
        super().__init__()
        self._cancel_running_call = cancel_running
        self._pid = os.getpid()
        self._streams: Optional[Tuple[Sequence[str], Sequence[int]]] = None

    @override
    def cancel(self) -> bool:
        """Cancel the call and return whether it is cancelled; one that runs is ended, with its process.

        Where it may wait (not in a done-callback, nor in a thread that runs an event loop), nothing of the process is
        left when it returns True. In a forked child it returns False, and does nothing: the call is its parent's.
        """
        if os.getpid() != self._pid:
            return False  # nor may it wait for a lock, which a thread may have held that the child has not
        return super().cancel() or (self.running() and self._cancel_running_call(self))

    @property
    def stdout(self) -> str:
        """What the call has printed; empty as long as it has not ended, and where it was not kept.

        That is so when the call has closed, redirected or truncated its standard output.
        """
        return self._written(0)

    @property
    def stderr(self) -> str:
        """What the call has written to standard error; as with `stdout`."""
        return self._written(1)

    def _end_of_stderr(self, most: int) -> str:
        """Return the last bytes of `stderr`, at the most so many."""
        return self._written(1, most)

    def _written(self, stream: int, most: Optional[int] = None) -> str:
        if self._streams is None:
            return ""
        paths, places = self._streams
        begin, end = places[2 * stream : 2 * stream + 2]
        if not 0 <= begin < end:
            return ""
        if most is not None:
            begin = max(begin, end - most)
        with Path(paths[stream]).open("rb") as file:
            file.seek(begin)
            return file.read(end - begin).decode(errors="replace")

    def _begin(self) -> bool:
        """Set a waiting future running; return False when it has an end, by a cancel or a result that was set."""
        with self._condition:
            if self._state == PENDING:
                self._state = RUNNING
                return True
            if self._state == CANCELLED:
                self.set_running_or_notify_cancel()
        return False

    def _resolve(self, value: Any) -> None:
        """Give the future its value, unless somebody has set a result."""
        try:
            self.set_result(value)
        except InvalidStateError:
            return

    def _fail(self, error: BaseException) -> None:
        """Give the future an exception, unless somebody has set a result."""
        try:
            self.set_exception(error)
        except InvalidStateError:
            return

    def _begins_anew(self) -> None:
        """Set a running future waiting again: its call is another worker's to make."""
        with self._condition:
            if self._state == RUNNING:
                self._state = PENDING

    def _end_running(self) -> bool:
        """Make a running future a cancelled one; return whether it still ran."""
        with self._condition:
            if self._state != RUNNING:
                return False
            self._state = CANCELLED_AND_NOTIFIED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        self._invoke_callbacks()
        return True
