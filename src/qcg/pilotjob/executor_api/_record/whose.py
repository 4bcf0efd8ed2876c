"""Whose the runs are that a record tells of: a user may read what a colleague's jobs have done, and is told that.

Nothing of such a run is executed, unpickled or connected to. All its files have to be those of one user: what somebody
else has put between them tells nothing of that user's jobs.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import IO, Iterable, List

from qcg.pilotjob.executor_api._shared.ownership import NotOwned, open_owned, owner_name, owner_of
from qcg.pilotjob.executor_api._shared.run_files import PREFIX, of_this_user, runs_in
from qcg.pilotjob.executor_api.errors import InvalidOption

__all__ = ["found_runs", "open_of_run", "owner_of_run", "tell_of_others"]

_CALLER = 3  # whoever asks for the record


def found_runs(directory: Path) -> List[str]:
    """Return the runs in a working directory: this user's if there are any, else those of the one who works there.

    Raises:
        InvalidOption: there are several other users' runs.
        PermissionError: the directory is closed to this user.
    """
    runs = runs_in(str(directory))
    own = of_this_user(runs)
    owners = sorted({owner_name(owner_of(run)) for run in runs})
    if own and len(own) < len(runs):
        warnings.warn(
            f"{directory} has runs of others too, which are left out: {', '.join(sorted({*runs} - {*own}))}",
            UserWarning,
            stacklevel=_CALLER + 1,
        )
    if not own and len(owners) > 1:
        raise InvalidOption(
            f"{os.fspath(directory)!r} has runs of several users, {', '.join(owners)}; name one of them"
        )
    return own or runs


def tell_of_others(reports: Iterable[Path]) -> None:
    """Warn of runs that are another user's."""
    for report in reports:
        owner = owner_of_run(report)
        if owner != os.geteuid():
            name = owner_name(owner)
            text = f"{report.parent} is a run of {name}: what is told of it is what {name} has written there"
            warnings.warn(text, UserWarning, stacklevel=_CALLER)


def owner_of_run(report: Path) -> int:
    """Return whose a run is: the manager's directory tells, or the report when that was taken elsewhere."""
    return (report.parent if report.parent.name.startswith(PREFIX) else report).stat().st_uid


def open_of_run(path: Path, owner: int) -> IO[bytes]:
    """Open a file of a run of that user.

    Raises:
        InvalidOption: it is another user's, or this user may not read it.
        OSError: it cannot be opened.
    """
    try:
        if path.parent.name.startswith(PREFIX):
            return open_owned(path, owner=owner, others_write=True)
        file = path.open("rb")
        if os.fstat(file.fileno()).st_uid == owner:
            return file
        file.close()
        raise NotOwned(f"{path} belongs to {owner_name(owner_of(path))}, and the report to {owner_name(owner)}")
    except NotOwned as error:
        raise InvalidOption(f"the run in {path.parent} is no single user's: {error}") from None
    except PermissionError as error:
        raise InvalidOption(f"{path} may not be read: {error.strerror}; ask {owner_name(owner)} for it") from None
