"""The standard streams of the manager and of an agent, which no job may get hold of."""

from __future__ import annotations

import os

__all__ = ["take_standard_input"]


def take_standard_input() -> int:
    """Move standard input out of the jobs' reach, who get end of file there; return the descriptor that it has now."""
    taken = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return taken
