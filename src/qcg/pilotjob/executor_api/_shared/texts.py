"""Write values, names and the ends of processes as text.

An exit code is negative for the number of a signal, as in `subprocess`. A shell that survives the program that a signal
has ended says so by an exit code of its own, 128 and the number. Other programs use these codes for other things, so
whoever knows that a shell has spoken gives the signal beside the code.
"""

from __future__ import annotations

import signal
from typing import Any, Optional

__all__ = [
    "code_text",
    "end_text",
    "printable",
    "shown",
    "signal_named_by_shell",
    "signal_of",
    "spelled",
    "state_text",
    "visible",
]

_MOST_SHOWN = 60


def printable(line: str) -> str:
    """Return what a job has written as it may be shown: what would move a terminal's cursor, say, becomes a blank."""
    return "".join(character if character.isprintable() else " " for character in line)


def shown(value: Any) -> str:
    """Return how Python writes `value`, for an error message: shortened, and its type where it cannot be written."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # repr() of a user's class may raise anything
        return f"something of the type {type(value).__name__}"
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def visible(text: str) -> str:
    """Return text that can be printed, drawn and encoded; the rest is written as Python writes it, with a backslash."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in text)


def spelled(value: Any) -> str:
    """Return `value` as text; a member of an enumeration that is a str, an int or a float as what it is equal to."""
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)
    return float.__repr__(value) if isinstance(value, float) else str(value)


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
