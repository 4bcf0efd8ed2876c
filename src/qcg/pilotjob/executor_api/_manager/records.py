"""Write the manager's files: its log, its record of ended jobs, its environment."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import logging
import os
import time
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from qcg.pilotjob.joblist import Job, JobState
from qcg.pilotjob.reports import JsonFileReport

from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.protocol import SUBMISSION
from qcg.pilotjob.executor_api._shared.times import seconds

__all__ = ["BufferedLog", "LinesFile", "Record", "keep_order", "numbered", "submission_of", "write_environment"]

_logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 0.2
_encode = json.JSONEncoder(separators=(",", ": ")).encode
_LOOK_SECONDS = 0.5  # between looks whether a file that is written to is still there


class _Formatter(logging.Formatter):
    """Tells the time that is on record; the logging module would tell that of the wall clock, without a zone."""

    def __init__(self, clock: _Clock) -> None:
        super().__init__("%(asctime)s: %(message)s")
        self._clock = clock

    @override
    def formatTime(self, record: logging.LogRecord, datefmt: Optional[str] = None) -> str:
        return self._clock.now()


class BufferedLog(logging.FileHandler):
    """A log file that is flushed a few times a second, and at once for warnings and errors.

    The core logs a dozen lines a job; a flush for each of them costs more than the job's start.
    """

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(path, mode="a", encoding="utf-8", errors="backslashreplace")
        self._loop = loop
        self._timer: Optional[asyncio.TimerHandle] = None
        self._clock = _Clock()
        self.setFormatter(_Formatter(self._clock))

    def note(self, text: str) -> None:
        """Write a line, at a tenth of what a log record costs: for what is told of every job. In the loop's thread."""
        assert self.stream is not None
        with contextlib.suppress(OSError):  # the disk is full: the job goes on without its line
            self.stream.write(f"{self._clock.now()}: {text}\n")
        self._flush_soon()

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._urgent = record.levelno >= logging.WARNING
        super().emit(record)

    @override
    def flush(self) -> None:
        """Flush now for what is urgent, soon for the rest."""
        if getattr(self, "_urgent", True) or self._loop.is_closed():
            self._flush_now()
        else:
            self._flush_soon()

    @override
    def close(self) -> None:
        self._urgent = True
        with contextlib.suppress(OSError):  # what could not be written stays unwritten
            super().close()

    def _flush_soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_FLUSH_SECONDS, self._flush_now)

    def _flush_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with contextlib.suppress(OSError):  # it is tried again with the next line
            super().flush()


class _Clock:
    """Tells the time that is on record as logging does, with the zone, and spells out each second once."""

    _second = -1

    def now(self) -> str:
        moment = seconds()
        if int(moment) != self._second:
            self._second = int(moment)
            local = time.localtime(moment)
            self._spelt = time.strftime(logging.Formatter.default_time_format, local)
            self._zone = time.strftime("%z", local)
        return f"{self._spelt},{int(moment % 1 * 1000):03}{self._zone}"


class LinesFile:
    """A file of lines, each of which is there as a whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._look_again = 0.0
        self._unwritten = b""

    def append(self, lines: bytes) -> None:
        """Write `lines`, behind what could not be written before.

        Raises:
            OSError: none of them is written.
        """
        lines = self._unwritten + lines
        if not lines:
            return
        file = self._open()
        try:
            written = os.write(file, lines)
            if written != len(lines):
                os.ftruncate(file, os.fstat(file).st_size - written)  # half a line would spoil the next one
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self.close()
            raise
        self._unwritten = b""

    def close(self) -> None:
        """Close the file, which the next line opens again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> int:
        now = time.monotonic()
        if self._file >= 0 and now > self._look_again:
            self._look_again = now + _LOOK_SECONDS
            if not os.fstat(self._file).st_nlink:
                self.close()  # it was removed, and nobody would ever read what is written there
        if self._file < 0:
            # to a symbolic link nothing is written that stands where a file of ours should be
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            self._file = os.open(self._path, flags, 0o644)
        return self._file

    def append_sooner_or_later(self, lines: bytes) -> None:
        """Write `lines`, now or when it is possible again."""
        try:
            self.append(lines)
        except OSError as error:
            _logger.error("what has ended cannot be recorded in %s: %s", self._path, error)  # noqa: TRY400
            self._unwritten += lines


class Record(JsonFileReport):  # type: ignore[misc]  # the core is untyped
    """The core's ``jobs.report``, written job by job: what has ended is on record, whatever happens next.

    Mends C28 (a report that cannot be written stops the manager's clean-up half way). What cannot be written is kept
    and written with the next job. Can go when the core does as much.
    """

    buffer: io.StringIO

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.buffer_size = 0
        self._file = LinesFile(Path(path))

    @override
    def report_job_entry(self, job: Job, iteration: Optional[int], ostream: io.StringIO) -> None:
        history = [_step(state.name, moment) for state, moment in job.history(iteration)]
        more = {"runtime": job.runtime(iteration), **numbered(job)}
        if iteration is None:
            more["execution"], more["resources"] = job.execution.to_dict(), job.resources.to_dict()
            if job.dependencies:
                more["dependencies"] = job.dependencies.to_dict()
        if job.messages(iteration):
            more["messages"] = job.messages(iteration)
        ostream.write(
            f'{{"name": {_encode(job.get_name(iteration))},"state": "{job.str_state(iteration)}",'
            f'"history": [{",".join(history)}],{_encode(more)[1:]}\n'
        )

    @override
    def flush(self) -> None:
        self._file.append_sooner_or_later(self.buffer.getvalue().encode())
        self.buffer = io.StringIO()
        self.buffered_entries = 0


def _step(state: str, moment: datetime) -> str:
    when = moment.timestamp()
    fraction = f".{moment.microsecond:06}" if moment.microsecond else ""
    date = f"{_local_second(when // 1)}{fraction}"  # without a zone, as tools of the core read it
    return f'{{"state": "{state}","date": "{date}","time": {when:.6f}}}'


@lru_cache(maxsize=16)  # the steps of many jobs are in the same second
def _local_second(when: float) -> str:
    return datetime.fromtimestamp(when).isoformat()


def submission_of(job: Job) -> int:
    """Return which submission of its name a job is; the first has no number."""
    return int(getattr(job, SUBMISSION, 1))


def numbered(job: Job) -> Dict[str, int]:
    """Return what a line, an event or a reply says of that: nothing of the first."""
    number = submission_of(job)
    return {SUBMISSION: number} if number > 1 else {}


def write_environment(path: Path) -> None:
    """Keep the environment for whoever has to find out why a job saw something else (mends C6: private, and whole)."""
    lines = b"".join(b"%b=%b\n" % item for item in sorted(os.environb.items()))
    path.write_bytes(lines)


def keep_order(history: List[Tuple[JobState, datetime]]) -> None:
    """Put the last step of a history behind the one before: what starters tell of is on record with their times.

    A job in reserve may have been started by the starter, before the manager had decided where it has its cores. So it
    is that step which gives way; with a later start the job would be on its cores together with the next one.
    """
    if len(history) < 2 or history[-2][1] <= history[-1][1]:
        return
    state, when = history[-1]
    if history[-2][0] == JobState.SCHEDULED:
        when = max([when, *(before for _, before in history[-3:-2])])
        history[-2] = (JobState.SCHEDULED, when)
        history[-1] = (state, when)
    else:
        history[-1] = (state, history[-2][1])
