"""A manager in an allocation that another client has asked for: the files of its run tell of it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from typing import Any, Dict, Optional

from qcg.pilotjob.executor_api._shared.ownership import NotOwned, read_owned
from qcg.pilotjob.executor_api._shared.run_files import HANDOVER, KEYS, PRESENCE
from qcg.pilotjob.executor_api.errors import InvalidOption, ManagerDied

__all__ = ["Distant"]

_GAP_SECONDS = 3.0  # more than there is between two looks, unless this process stood still


class Distant:
    """Where that manager is; see `Peer`."""

    end_fd = -1
    reach_seconds = 60.0
    patience = 300.0
    """Seconds for which nothing may be heard of it: nobody tells that it was killed, with its node perhaps."""

    def __init__(self, run: str) -> None:
        """Look at the directory of a run.

        Raises:
            InvalidOption: it is another user's.
        """
        self._run = run
        try:
            self.keys: Dict[str, Any] = json.loads(read_owned(os.path.join(run, KEYS)))["client"]
        except NotOwned as error:
            raise InvalidOption(f"manager is {run!r}: {error}") from None
        self.manager: Optional[Dict[str, Any]] = None
        self._text = b""
        self._heard_at = math.inf
        self._looked_at = math.inf
        if not self.has_ended:
            with contextlib.suppress(ManagerDied):  # this moment: `has_ended` tells
                self.look()

    @property
    def has_ended(self) -> bool:
        """Whether there is no manager, and none is to come."""
        # in this order: the handover goes when the presence is there
        return not any(os.path.exists(os.path.join(self._run, name)) for name in (HANDOVER, PRESENCE))

    def endpoint(self, what: str, host: str) -> str:
        """Return the address of the manager's ``requests`` or ``events``."""
        assert self.manager is not None
        return f"tcp://{host}:{self.manager['remote'][what]}"

    def hear(self) -> bool:
        """Return False: nobody tells."""
        return False

    def heard(self) -> None:
        """Note that the manager has said something."""
        self._heard_at = time.monotonic()

    def look(self) -> None:
        """Look for the manager.

        Raises:
            ManagerDied: it has ended, or nothing is heard of it.
        """
        text = b""
        with contextlib.suppress(FileNotFoundError):
            text = read_owned(os.path.join(self._run, PRESENCE))
        if text and text != self._text:
            with contextlib.suppress(ValueError):  # it is being written
                self.manager, self._text, self._heard_at = json.loads(text), text, math.inf
        elif not text and (self._text or self.has_ended):
            raise ManagerDied(f"the manager of {self._run} has ended; resume= takes up what it has left")
        now = time.monotonic()
        if now - self._looked_at > _GAP_SECONDS:  # what has come meanwhile is not read yet
            self._heard_at += now - self._looked_at
        self._looked_at = now
        if now - self._heard_at > self.patience:
            raise ManagerDied(
                f"nothing has been heard of the manager of {self._run} for {self.patience:g} s: it was killed, or the "
                "network is gone; manager= connects to one that lives, resume= takes up what another has left"
            )
