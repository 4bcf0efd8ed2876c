"""The templates that come with the package, by name."""

from __future__ import annotations

import qcg.pilotjob.executor_api as api

__all__ = ["TEMPLATES", "listing"]

TEMPLATES = ("BasicTemplate", "ScriptTemplate", "ParallelTemplate", "IterationTemplate")


def listing() -> str:
    """Return a line for each: its name and what it is for."""
    return "\n".join(f"{name:20}{(getattr(api, name).__doc__ or '').partition(chr(10))[0]}" for name in TEMPLATES)
