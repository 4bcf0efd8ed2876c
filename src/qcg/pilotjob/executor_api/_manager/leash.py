"""How long a manager whose client is on another machine goes on without it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._manager.remote_sockets import Remote

__all__ = ["Leash"]

_logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


@dataclass
class Leash:
    """Ends the manager when its client has not been heard of for `seconds`.

    A manager that is let off goes on without a client; it ends when no job has been left for `idle_seconds`, so that
    it does not keep an allocation for nothing.
    """

    remote: Remote
    manager: Any
    seconds: float
    idle_seconds: float
    on_silence: Callable[[str], None]
    on_idle: Callable[[], None]
    look_for_handover: Callable[[], None]

    def start(self) -> None:
        """Look from now on."""
        self._loop = asyncio.get_event_loop()
        self._started_at = self._loop.time()
        self._look()

    def _look(self) -> None:
        try:
            self.look_for_handover()
        except OSError as error:  # of a shared file system, which may answer the next time
            _logger.warning("whether a client has left jobs for this manager is not known: %s", error)
        now = self._loop.time()
        silent = now - self.remote.last_heard
        if not self.manager.detached and silent > self.seconds:
            self.on_silence(f"its client has not been heard of for {silent:.0f} s")
        elif self.manager.detached and self.manager.is_all_jobs_finished and self._idle_for(now) > self.idle_seconds:
            _logger.info("nothing has been left to do for %g s", self.idle_seconds)
            self.on_idle()
        else:
            self._loop.call_later(_LOOK_SECONDS, self._look)

    def _idle_for(self, now: float) -> float:
        last: float = max(self._started_at, self.manager.last_end, self.remote.last_heard)
        return now - last
