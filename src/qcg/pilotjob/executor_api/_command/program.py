"""What the commands have in common: typer, and how they end."""

import io
import os
import sys
from typing import Type

from qcg.pilotjob.executor_api.errors import QCGPJError

try:
    import typer
except ImportError:
    program = os.path.basename(sys.argv[0])
    sys.exit(f"{program} needs typer; pip install 'qcg-pilotjob-executor-api[command]'")

__all__ = ["run_app", "typer"]

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
