"""One round of a system, in a process and an empty directory of its own; nothing of it is left afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Tuple

from harness.processes import descendants, kill_descendants
from harness.systems import System

BENCHMARKS = Path(__file__).parents[1]
_SINGLES = 30  # submissions for the latency
_SCRIPT = """
import sys
sys.path.insert(0, {benchmarks!r})
from systems.{adapter} import open_session
session = open_session({workers}, {command!r}, **{options!r})
run = session.run(1)
session.close()
sys.exit(run.good != 1)
"""


class RoundFailed(Exception):
    """A round has no result."""


class TookTooLong(RoundFailed):
    """A round was ended by its time limit."""


class Load(NamedTuple):
    """What a round does."""

    workers: int
    jobs: int
    seconds: float  # of each job; 0 for one that ends at once

    @property
    def command(self) -> List[str]:
        """The job."""
        return ["/bin/sleep", str(self.seconds)] if self.seconds else ["/bin/true"]


def many(system: System, python: Path, load: Load, limit: float) -> Dict[str, Any]:
    """Return what the worker has measured.

    Raises:
        RoundFailed: it has not.
    """
    output, _ = run_alone([str(python), *worker_arguments(system, load)], limit, environment_of(python))
    return read_result(output)


def script(system: System, python: Path, load: Load, limit: float) -> Dict[str, Any]:
    """Return how long a script takes that runs one job, from the start of Python to its end.

    Raises:
        RoundFailed: the script has failed.
    """
    text = _SCRIPT.format(benchmarks=str(BENCHMARKS), command=load.command, **_orders(system, load))
    _, seconds = run_alone([str(python), "-c", text], limit, environment_of(python))
    return {"jobs": 1, "lost": 0, "seconds": seconds}


def worker_arguments(system: System, load: Load) -> List[str]:
    """Return the command line of the worker, without its interpreter."""
    singles = _SINGLES if system.open else 0
    orders = {**_orders(system, load), "command": load.command, "jobs": load.jobs, "singles": singles}
    return [str(BENCHMARKS / "worker.py"), json.dumps(orders)]


def _orders(system: System, load: Load) -> Dict[str, Any]:
    return {"adapter": system.adapter, "options": system.options, "workers": load.workers}


def environment_of(python: Path) -> Dict[str, str]:
    """Return the environment of a shell in which the virtual environment of `python` is activated, and no other."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SLURM_"))}
    return {**kept, "PATH": f"{python.parent}{os.pathsep}{kept.get('PATH', os.defpath)}"}


def read_result(output: str) -> Dict[str, Any]:
    """Return the JSON on the last line of what a worker has printed."""
    result: Dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def run_alone(
    command: List[str],
    limit: float,
    environment: Mapping[str, str],
    before_killing: Callable[[], object] = lambda: None,
) -> Tuple[str, float]:
    """Run a program in an empty directory, and kill what it leaves behind; return what it has printed, and seconds.

    `before_killing` is called when the program has ended, however it has; seconds are without it.

    Raises:
        RoundFailed: it has failed, or not ended within `limit` seconds.
    """
    # the output goes to files: whoever is left behind would hold a pipe open
    with tempfile.TemporaryDirectory(prefix="b-") as parent, tempfile.TemporaryFile("w+") as output:
        with tempfile.TemporaryFile("w+") as errors:
            for name in ("wd", "tmp"):
                Path(parent, name).mkdir()
            options = {"cwd": f"{parent}/wd", "env": {**environment, "TMPDIR": f"{parent}/tmp"}}
            code, seconds = _run(command, limit, before_killing, stdout=output, stderr=errors, **options)
            if code:
                errors.seek(0)
                said = errors.read().strip().splitlines() or ["it says nothing"]
                raise RoundFailed(f"exit code {code}: {said[-1][:200]}")
        output.seek(0)
        return output.read(), seconds


def _run(command: List[str], limit: float, before_killing: Callable[[], object], **options: Any) -> Tuple[int, float]:
    """Return the exit code and the seconds."""
    here_before = descendants()  # the daemons of a cluster
    start = time.perf_counter()
    try:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=limit, check=False, **options).returncode
        return code, time.perf_counter() - start
    except subprocess.TimeoutExpired as error:
        raise TookTooLong(f"not ended within {limit:.0f} s") from error
    finally:
        before_killing()
        kill_descendants(here_before)
