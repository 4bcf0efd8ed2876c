"""The calls that no worker has yet, in order; any thread may use them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Deque, List, Optional, Set

from qcg.pilotjob.executor_api._client.inbox import own
from qcg.pilotjob.executor_api._functions.calls import Call, Worker
from qcg.pilotjob.executor_api.errors import ExecutorClosed

__all__ = ["Waiting"]


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
                raise own(self._broken)
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
        """Let the call of a worker be the next one, unless it is over: cancelled, or its time was."""
        with self.lock:
            if not call.is_over:
                call.future._begins_anew()
                self._calls.appendleft(call)

    def take_back(self, worker: Worker, count: int) -> None:
        """Let others make the last calls of a worker, which have not begun."""
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
            call.future._fail(own(error))
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
            call.future._fail(own(error))

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
