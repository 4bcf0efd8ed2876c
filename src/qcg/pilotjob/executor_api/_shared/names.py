"""What a job may be called: one rule for names that templates give and for those in requests by hand.

A name stands in paths (``<name>.out``), in command lines that users write, in lists and in pictures. So it has no
character that means something to a shell, the manager or a terminal, and no path made of it leaves its directory.
"""

from __future__ import annotations

import re
from typing import Tuple

__all__ = ["FREE_NAME", "MARKS", "problem_of_name"]

FREE_NAME = "run it again after qcgpj_manager.remove([name])"
"""What to do about a name that is taken, in error messages."""

MARKS = "-_./@+=,#~"
"""What a name may have beside letters, digits, and what can be printed beyond ASCII."""

_ORDINARY = re.compile(rf"[A-Za-z0-9{re.escape(MARKS)}]+")
_ADVICE = f"use letters, digits and {' '.join(MARKS)} (and what can be printed beyond ASCII)"


def problem_of_name(name: str) -> Tuple[str, str]:
    """Return what is wrong with a name, and what to do about it; two empty texts when it is good."""
    if not name:
        return "is empty", _ADVICE
    if not _ORDINARY.fullmatch(name):
        for character in name:
            if not (character.isprintable() and (not character.isascii() or _ORDINARY.fullmatch(character))):
                return f"{name!r} contains {character!r}", _ADVICE
    if "/" in name or name in (".", ".."):
        for part in name.split("/"):
            if part in ("", ".", ".."):
                what = f"has the part {part!r}" if part else "begins or ends with '/', or has two in a row"
                return f"{name!r} {what}", "its files would be elsewhere; write parts like a/b, wd= says where they are"
    return "", ""
