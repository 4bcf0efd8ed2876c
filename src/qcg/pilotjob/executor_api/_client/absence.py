"""What is answered when there is no manager yet, or none any more and another one to come."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List

from qcg.pilotjob.executor_api._client.inbox import Inbox
from qcg.pilotjob.executor_api._client.pending import Pending
from qcg.pilotjob.executor_api.errors import ManagerDied

__all__ = ["answer"]


def answer(inbox: Inbox, pending: Pending, cancel: Callable[[List[str]], bool] = lambda _: False) -> None:
    """Answer the questions in `inbox` that need no manager: for jobs that wait there to be sent, or are `pending`.

    A job that waits is QUEUED; when it is cancelled it is not sent any more. Jobs that an earlier manager had are given
    to `cancel`, which returns whether it could cancel them. What else is asked stays in the inbox.
    """
    for question in inbox.take_questions():
        if question.is_glance:  # kept here, it would let another allocation be asked for
            question.failed(ManagerDied("there is no manager at the moment"))
            continue
        request = json.loads(question.message())
        names: List[str] = request.get("jobNames", [])
        if request["request"] == "cancelJob" and (inbox.drop(names) or cancel(names)):
            question.answered({"code": 0, "data": {}})
        elif request["request"] in ("jobStatus", "jobInfo") and all(
            name in pending or inbox.has_unsent(name) for name in names
        ):
            question.answered({"code": 0, "data": {"jobs": {name: {"data": _queued(name)} for name in names}}})
        else:
            inbox.keep(question)


def _queued(name: str) -> Dict[str, Any]:
    return {"jobName": name, "status": "QUEUED", "runtime": {}, "history": ""}
