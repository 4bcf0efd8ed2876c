"""Measure when each job's process ran (``enable_rt_stats``), in the core's file format.

On a node of an allocation the core's agent takes these times from a wrapper program. Here the manager starts the
processes itself, so it knows the times; a wrapper that is named is run all the same, and its times are preferred.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import socket
import tempfile
import threading
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, List, MutableMapping, Optional

from qcg.pilotjob.config import Config

_logger = logging.getLogger(__name__)


def _local(moment: datetime) -> str:
    return str(moment.astimezone().replace(tzinfo=None))


def wrapper_in(config: Dict[Any, Any]) -> Optional[str]:
    """Return the wrapper that was named, None for the core's own one, which is not needed."""
    wrapper = Config.WRAPPER_RT_STATS.get(config)
    return None if wrapper == Config.WRAPPER_RT_STATS.value["default"] else str(wrapper)


class RunTimes:
    """Collects start and end of every job iteration, and writes them to ``rtimes_<host>_<date>_<pid>.log``.

    That is in the working directory, where the core has it and its ``qcg-pm-report`` looks for it.
    """

    def __init__(self, directory: Path, pipe: Path, wrapper: Optional[str], loop: asyncio.AbstractEventLoop) -> None:
        self._directory = directory
        self._pipe = pipe
        self._wrapper = wrapper
        self._loop = loop
        self._times: Dict[str, Dict[str, str]] = {}
        self._descriptor = -1
        self._unread = b""
        if wrapper:
            os.mkfifo(pipe, 0o600)
            # open for writing too, so that the end of one wrapper is not the end of the file
            self._descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
            loop.add_reader(self._descriptor, self._read)

    def wrapped(self, command: List[str], env: MutableMapping[str, Optional[str]], name: str) -> List[str]:
        """Return the command as it has to be run, and tell the wrapper in `env` where to write."""
        if not self._wrapper:
            return command
        env["QCG_PM_RUNTIME_STATS_PIPE"] = str(self._pipe)
        env["QCG_PM_RUNTIME_STATS_ID"] = name
        return [self._wrapper, *command]

    def ended(self, name: str, started: datetime, finished: datetime) -> None:
        """Keep the times that the manager saw."""
        self._times.setdefault(name, {"s": _local(started), "f": _local(finished)})

    def close(self) -> None:
        """Write the file, if that is possible."""
        if self._descriptor >= 0:
            self._read()
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
        host = socket.gethostname()
        path = self._directory / f"rtimes_{host}_{datetime.now().isoformat()}_{os.getpid()}.log"
        try:
            path.write_text(json.dumps({"node": host, "rt": self._times}, indent=2), encoding="utf-8")
        except OSError as error:  # which is no reason to leave the rest of the end undone
            _logger.error("the times of jobs are not kept: %s", error)  # noqa: TRY400

    def _read(self) -> None:
        try:
            self._unread += os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            try:
                name, started, finished = line.decode().rsplit(",", 2)
                times = [str(datetime.fromtimestamp(float(text))) for text in (started, finished)]
            except (ValueError, OverflowError, OSError):
                _logger.warning("the wrapper wrote something else than name,start,end: %r", line)
                continue
            self._times[name] = dict(zip("sf", times))


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
