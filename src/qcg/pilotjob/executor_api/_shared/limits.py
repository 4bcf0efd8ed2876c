"""How large what is submitted may be; both the client and the manager refuse what is larger."""

from __future__ import annotations

from typing import List

__all__ = ["MOST_ITERATIONS", "SHORT", "in_pieces", "problem_of_script", "problem_of_text"]

MOST_ITERATIONS = 1_000_000
"""Of one array. Each is a job, so nobody means more, and a mistyped number is easily a thousand times that."""

_MOST_TEXT = 128 * 1024 - 1  # bytes: Linux gives no process a longer argument, or variable with its name
SHORT = _MOST_TEXT // 4 - 100
"""Characters, which have four bytes at the most: so many fit into a variable."""
_MOST_SCRIPT = 1024 * 1024  # bytes: all that a process is given is 2 MiB at the most


def problem_of_text(text: str, name: str = "") -> str:
    """Return why no process can be given an argument, or the value of the variable `name`; nothing when one can."""
    size = _size(f"{name}={text}" if name else text)
    return f"has {size} bytes; a process can be given {_MOST_TEXT}" if size > _MOST_TEXT else ""


def problem_of_script(script: str) -> str:
    """Return why a script is too long, its variables included; nothing when it is not."""
    size = _size(script)
    return (
        f"has {size} bytes with its variables; a script has {_MOST_SCRIPT} at the most" if size > _MOST_SCRIPT else ""
    )


def _size(text: str) -> int:
    return len(text) if len(text) < SHORT else len(text.encode(errors="surrogatepass"))


def in_pieces(script: str) -> List[str]:
    """Return a script in pieces each of which fits into a variable."""
    return [script[begin : begin + SHORT] for begin in range(0, len(script), SHORT)]
