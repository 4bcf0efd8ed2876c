"""How the end of a process is called: by its exit code, or by the signal that ended it.

An exit code is negative for the number of a signal, as in `subprocess`. A shell that survives the program that a signal
has ended says so by an exit code of its own, 128 and the number. Other programs use these codes for other things, so
whoever knows that a shell has spoken gives the signal beside the code.
"""

from __future__ import annotations

import signal
from typing import Optional

__all__ = ["code_text", "end_text", "signal_named_by_shell", "signal_of", "state_text"]

_OF_SHELLS = 128


def signal_of(exit_code: Optional[int]) -> Optional[str]:
    """Return the name of the signal that ended a process with this exit code, None when none did."""
    return None if exit_code is None or exit_code >= 0 else _name(-exit_code)


def signal_named_by_shell(exit_code: int) -> Optional[str]:
    """Return the name of the signal that a shell tells of by this exit code of its own, None for other codes."""
    number = exit_code - _OF_SHELLS
    return _name(number) if number in signal.valid_signals() else None


def code_text(exit_code: Optional[int], by: Optional[str] = None) -> str:
    """Return ``exit code 3``, ``ended by SIGSEGV`` or, where a shell has told of the signal `by`, both; or nothing."""
    if exit_code is None:
        return ""
    if exit_code < 0:
        return f"ended by {_name(-exit_code)}"
    return f"exit code {exit_code}" + (f" ({_OF_SHELLS} + {by})" if by else "")


def end_text(exit_code: int, by: Optional[str] = None) -> str:
    """Return what goes behind the name of a process: ``ended with exit code 3``, ``was ended by SIGSEGV``."""
    return f"was {code_text(exit_code)}" if exit_code < 0 else f"ended with {code_text(exit_code, by)}"


def state_text(state: str, exit_code: Optional[int], by: Optional[str] = None) -> str:
    """Return ``FAILED with exit code 3`` or ``FAILED, ended by SIGSEGV``; the state alone where there is no code."""
    if exit_code is None:
        return state
    return f"{state}, {code_text(exit_code)}" if exit_code < 0 else f"{state} with {code_text(exit_code, by)}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # those between SIGRTMIN and SIGRTMAX have no names
        return f"signal {number}"
