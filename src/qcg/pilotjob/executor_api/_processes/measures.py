"""What the core can measure on a node: the times of jobs, and its processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, List, MutableMapping, Optional

from qcg.pilotjob.executor_api._processes.run_times import RunTimes


class Measures:
    """Measures what an agent's orders ask for."""

    def __init__(self, orders: Dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._run_times: Optional[RunTimes] = None
        self._directory: Optional[Path] = None
        if orders["run_times"]:
            self._directory = Path(tempfile.mkdtemp(prefix="qcgpj-"))
            self._run_times = RunTimes(Path(orders["wd"]), self._directory / "rt.pipe", orders["wrapper"], loop)
        self._stop = threading.Event()
        self._tracer: Optional[threading.Thread] = None
        if orders["process_times"]:
            from qcg.pilotjob.launcher.procstats import ProcStats  # needs a tenth of a second

            os.chdir(orders["wd"])  # it writes where it is
            self._tracer = threading.Thread(target=ProcStats(self._stop).trace, daemon=True)
            self._tracer.start()

    def wrapped(self, command: List[str], env: MutableMapping[str, Optional[str]], name: str) -> List[str]:
        """Return the command as it has to be run."""
        return self._run_times.wrapped(command, env, name) if self._run_times is not None else command

    def ended(self, name: str, started: datetime, ended: datetime) -> None:
        """Keep the times of a job."""
        if self._run_times is not None:
            self._run_times.ended(name, started, ended)

    def close(self) -> None:
        """Write all that was measured."""
        self._stop.set()
        if self._run_times is not None:
            self._run_times.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._tracer is not None:
            self._tracer.join(3.0)
