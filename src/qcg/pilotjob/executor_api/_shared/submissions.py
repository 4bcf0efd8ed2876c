"""Which submission of its name a job is: a name can be used again when its job has ended and was removed.

The manager numbers the submissions of each name from 1 on, in the order of ``track.reqs``. Numbers other than 1 stand
as "submission" in the lines of ``jobs.report``, ``track.states`` and ``track.starts``, in events, and in the replies to
``submit``, ``jobStatus`` and ``removeJob``.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping

__all__ = ["SUBMISSION", "Submissions"]

SUBMISSION = "submission"


class Submissions:
    """Tells of the lines of a file of ends, in their order, to which submission of its name each belongs.

    Lines up to release 0.15 have no numbers. There the end of a whole job, which follows those of its iterations, ends
    a submission, unless it was interrupted.
    """

    def __init__(self) -> None:
        self._whole: Dict[str, int] = {}

    def of(self, name: str, line: Mapping[str, Any], *, interrupted: bool) -> int:
        """Return the number of the submission that a line is about; `name` is that of a job, or of an iteration."""
        job, colon, _ = name.partition(":")
        number = int(line.get(SUBMISSION) or self._whole.get(job, 0) + 1)
        if not colon and not interrupted:
            self._whole[job] = number
        return number
