"""An event that processes share which have nothing in common but the file system."""

from __future__ import annotations

import time
from pathlib import Path

__all__ = ["FileEvent"]

DEADLINE = 60.0


class FileEvent:
    """Is set when its file is there; it can be pickled."""

    def __init__(self, path):
        self.path = Path(path)

    def set(self):
        """Set it."""
        self.path.touch()

    def wait(self):
        """Return True when it is set, or False at the deadline."""
        end = time.monotonic() + DEADLINE
        while not self.path.exists():
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True
