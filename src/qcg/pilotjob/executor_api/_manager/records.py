"""What the manager writes: its log."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Optional

from typing_extensions import override

_FLUSH_SECONDS = 0.2


class BufferedLog(logging.FileHandler):
    """A log file that is flushed a few times a second, and at once for warnings and errors.

    The core logs a dozen lines a job; a flush for each of them costs more than the job's start.
    """

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(path, mode="a", encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)-15s: %(message)s"))
        self._loop = loop
        self._timer: Optional[asyncio.TimerHandle] = None

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._urgent = record.levelno >= logging.WARNING
        super().emit(record)

    @override
    def flush(self) -> None:
        """Flush now for what is urgent, soon for the rest."""
        if getattr(self, "_urgent", True) or self._loop.is_closed():
            self._flush_now()
        elif self._timer is None:
            self._timer = self._loop.call_later(_FLUSH_SECONDS, self._flush_now)

    @override
    def close(self) -> None:
        self._urgent = True
        super().close()

    def _flush_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().flush()


def write_environment(path: Path) -> None:
    """Keep the environment for whoever has to find out why a job saw something else (mends C6: private, and whole)."""
    lines = b"".join(b"%b=%b\n" % item for item in sorted(os.environb.items()))
    path.write_bytes(lines)
