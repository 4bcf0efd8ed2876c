"""Values as text."""

from __future__ import annotations

from typing import Any

__all__ = ["printable", "shown", "spelled", "visible"]

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
