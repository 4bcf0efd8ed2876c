"""The threads that start processes: a start keeps its thread waiting, for longer where the file system is slow."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Callable, Deque, Iterator, List, Mapping, Optional, Tuple

from qcg.pilotjob.executor_api._manager.spawning import CannotStart, Order, Spawner

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._manager.processes import Child

__all__ = ["Starters"]

_logger = logging.getLogger(__name__)

_MOST = 4
_LAST_STARTS_SECONDS = 0.5  # for starts that are under way when all has to end


class Starters:
    """Start what is ordered, while the loop goes on. All but the threads' own belongs to the loop's thread."""

    def __init__(self, environment: Mapping[str, str], wake: Callable[[], None]) -> None:
        """`wake`, called in one of the threads, brings about that `started` is called."""
        self.under_way = 0
        self._spawner = Spawner(environment)
        self._wake = wake
        self._awaited = False
        self._closed = False
        self._orders: "queue.SimpleQueue[Optional[Tuple[Order, Child]]]" = queue.SimpleQueue()
        self._started: Deque[Child] = deque()
        self._threads: List[threading.Thread] = []

    def order(self, order: Order, child: Child) -> None:
        """Let `child` be started."""
        self.under_way += 1
        if len(self._threads) < min(self.under_way, _MOST):
            thread = threading.Thread(target=self._run, name="qcgpj-starter", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._orders.put((order, child))

    def started(self) -> Iterator[Child]:
        """Yield what was started, or could not be, each once."""
        while self._started:
            self.under_way -= 1
            yield self._started.popleft()

    def wake_at_next(self) -> None:
        """Let the next start wake the loop; `started` has to be looked at after this."""
        self._awaited = True

    def close(self) -> None:
        """Start nothing more; those under way have a moment. From any thread."""
        self._closed = True
        for _ in self._threads:
            self._orders.put(None)
        deadline = time.monotonic() + _LAST_STARTS_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while True:
            item = self._orders.get()
            if item is None or self._closed:
                return
            order, child = item
            try:
                child.started = datetime.now()
                child.pid = self._spawner.spawn(order)
            except CannotStart as error:
                child.failure = error
            except Exception as error:
                _logger.exception("%s was not started", order.command[0])
                child.failure = CannotStart(f"cannot start {order.command[0]!r}: {error}")
            self._started.append(child)
            if self._awaited or child.failure is not None:
                self._awaited = False
                self._wake()
