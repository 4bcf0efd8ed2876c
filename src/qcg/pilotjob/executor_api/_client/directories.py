"""The directory of a manager: what is in it, and how the directory of another run is found."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Union

from qcg.pilotjob.executor_api.errors import InvalidOption, ManagerStartError

__all__ = ["PREFIX", "Directories", "find_run", "make_directories", "tail"]

PREFIX = ".qcgpjm-service-"


@dataclass(frozen=True)
class Directories:
    """Where a manager keeps its files: `aux` is private, in the working directory."""

    aux: Path
    report: Path
    """A line of JSON for each job and iteration that has ended."""

    @property
    def log(self) -> Path:
        """The core's log."""
        return self.aux / "service.log"

    @property
    def output(self) -> Path:
        """What the manager process prints: next to nothing, unless it fails."""
        return self.aux / "manager.out"


def make_directories(wd: Path, name: str, report: str, *, resumed: bool) -> Directories:
    """Make the directory of the manager `name`, private; that of a `resumed` run is there.

    Raises:
        ManagerStartError: another manager has or had that name.
    """
    wd.mkdir(parents=True, exist_ok=True)
    aux = wd / f"{PREFIX}{name}"
    if not resumed:
        try:
            aux.mkdir(mode=0o700)
        except FileExistsError:
            raise ManagerStartError(
                f"{aux} exists: another manager has or had this id; give another --id or leave it out, or take up its "
                "run with resume="
            ) from None
    return Directories(aux, aux / (report or "jobs.report"))


def find_run(option: str, given: Union[str, "os.PathLike[str]", Any]) -> Path:
    """Return the manager's directory that `given` is, or the latest one in it.

    Raises:
        InvalidOption: there is none.
    """
    if not given or not isinstance(given, (str, os.PathLike)):
        raise InvalidOption(f"{option} is {given!r}; give the directory of a manager, or the one that it worked in")
    path = Path(os.path.abspath(os.fspath(given)))
    if path.name.startswith(PREFIX) and path.is_dir():
        return path
    runs: List[Path] = [run for run in path.glob(f"{PREFIX}*") if run.is_dir()]
    if not runs:
        raise InvalidOption(
            f"{option} is {os.fspath(given)!r}, which is not a manager's directory ({PREFIX}...) and has none in it"
        )
    return max(runs, key=lambda run: run.stat().st_mtime)


def tail(path: Path, lines: int, since: int = 0) -> str:
    """Return the last lines of a file, as far as they are in its last 16 KiB; nothing when it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(since, file.tell() - 16384))
            text = file.read().decode("utf-8", "backslashreplace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
