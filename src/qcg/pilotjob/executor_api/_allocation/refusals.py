"""Say what to do when a scheduler refuses an allocation. Without psij, whose import starts a thread."""

from __future__ import annotations

from typing import Any, Dict

__all__ = ["in_our_words"]


def in_our_words(said: str, wanted: Dict[str, Any]) -> str:
    """Return what the scheduler has refused, with what to do about it."""
    hints = {  # in this order: a refused account may name the partition too
        ("account", "project"): (
            f"account {wanted['account']!r} may not be used here; 'sacctmgr show associations user=$USER' tells which; "
            "give account="
        ),
        ("partition", "queue"): (
            f"there is no queue {wanted['queue']!r} that takes this; 'sinfo' or 'qstat -Q' lists them; give queue="
        ),
        ("time",): "the queue allows less time; give a shorter walltime= or another queue=",
        ("node", "cpu"): "the queue does not have that many nodes or cores; give other nodes= or cores_per_node=",
    }
    found = [hint for words, hint in hints.items() if any(word in said.lower() for word in words)]
    hint = [*found, "these are the scheduler's words; Allocation's arguments are what it was asked for"][0]
    return f"the scheduler refused it: {said.strip()}\n  next: {hint}"
