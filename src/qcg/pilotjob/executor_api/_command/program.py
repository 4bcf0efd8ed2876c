"""Run a command of the shell: typer, its end, and the templates that come with the package."""

from __future__ import annotations

import io
import os
import sys
from typing import Type

import qcg.pilotjob.executor_api as api
from qcg.pilotjob.executor_api.errors import QCGPJError

__all__ = ["TEMPLATES", "listing", "run_app", "typer"]

TEMPLATES = ("BasicTemplate", "ScriptTemplate", "ParallelTemplate", "IterationTemplate")


def listing() -> str:
    """Return a line for each: its name and what it is for."""
    return "\n".join(f"{name:20}{(getattr(api, name).__doc__ or '').partition(chr(10))[0]}" for name in TEMPLATES)


try:
    import typer
except ImportError:
    program = os.path.basename(sys.argv[0])
    sys.exit(f"{program} needs typer; pip install 'qcg-pilotjob-executor-api[command]'")


_USAGE = 2
_INTERRUPTED = 130


def run_app(app: "typer.Typer", *told: Type[Exception]) -> None:
    """Run a command, and end the program with its exit code; our own errors and those `told` are messages."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except (QCGPJError, *told) as error:  # type: ignore[misc]  # mypy knows no such tuple
        print(error, file=sys.stderr)
        sys.exit(_USAGE)
