"""In place of sockets, for a manager that has ended in peace: questions are answered from what it has put on record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import zmq

from qcg.pilotjob.executor_api._client.channels import Alarm
from qcg.pilotjob.executor_api._client.ended_jobs import Report
from qcg.pilotjob.executor_api._shared.submissions import SUBMISSION

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["RecordChannel"]


class RecordChannel:
    """Knows how jobs have ended, and refuses all else. Belongs to the dispatcher's thread alone."""

    description = None
    greeted = True
    lost = False

    def __init__(self, report: Report, alarm: Alarm) -> None:
        self._report = report
        self._alarm = alarm
        self._reply: Optional[Dict[str, Any]] = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Nothing is open."""

    @property
    def awaits_reply(self) -> bool:
        """Whether a reply waits to be fetched."""
        return self._reply is not None

    def send(self, message: bytes) -> None:
        """Answer a request."""
        request = json.loads(message)
        states = {name: self._report.state(name) for name in request.get("jobNames", [])}
        if request["request"] == "jobStatus" and all(states.values()):
            jobs = {
                name: {"data": {"jobName": name, "status": state, SUBMISSION: self._report.submission(name)}}
                for name, state in states.items()
            }
            self._reply = {"code": 0, "data": {"jobs": jobs}}
            return
        missing = ", ".join(name for name, state in states.items() if not state)
        what = f"; {missing} had not ended before that" if missing else ""
        self._reply = {"code": -1, "message": f"the manager has ended{what}; resume= takes up what it has left"}

    def wait(self, timeout: Optional[float]) -> bool:
        """Sleep until there is a reply, the alarm is set, or `timeout` seconds have passed."""
        milliseconds = 0 if self._reply is not None else -1 if timeout is None else int(timeout * 1000) + 1
        if zmq.zmq_poll([(self._alarm.fileno(), zmq.POLLIN)], milliseconds):
            self._alarm.clear()
        return False

    def reply(self) -> Optional[Dict[str, Any]]:
        """Return the reply, if there is one."""
        reply, self._reply = self._reply, None
        return reply

    def finished_jobs(self) -> List[Tuple[str, str, int]]:
        """Return nothing: no job ends any more."""
        return []

    def has_missed(self) -> bool:
        """Return False: there are no events."""
        return False

    def listen(self) -> None:
        """Do nothing: no job waits."""

    def longest_waiting(self) -> str:
        """Return nothing."""
        return ""
