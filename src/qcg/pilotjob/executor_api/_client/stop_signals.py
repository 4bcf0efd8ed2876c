"""Signals that say that the time is nearly over."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any, List, Optional

from qcg.pilotjob.executor_api._client.connection import Connection

__all__ = ["on_signals"]


def on_signals(numbers: List[int], connection: Connection) -> None:
    """Let each of the signals end the run of `connection` in peace; once that has ended they mean what they meant."""
    before = {number: signal.getsignal(number) for number in numbers}

    def stop(number: int, _: Optional[FrameType]) -> None:
        if connection.has_ended:
            _restore(number, before[number])
            os.kill(os.getpid(), number)
        else:
            connection.leave(cancel_queued=True)

    def restore() -> None:
        for number in numbers:
            if signal.getsignal(number) is stop:
                _restore(number, before[number])

    for number in numbers:
        signal.signal(number, stop)
    connection.restore_signals = restore


def _restore(number: int, handler: Any) -> None:
    # a handler that was not set in Python is None, and cannot be set from there
    signal.signal(number, signal.SIG_DFL if handler is None else handler)
