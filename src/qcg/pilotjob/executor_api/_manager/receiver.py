"""From a request to its reply."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, Dict, List

from qcg.pilotjob.receiver import Receiver as CoreReceiver
from qcg.pilotjob.response import Response

from qcg.pilotjob.executor_api._overriding import override

_logger = logging.getLogger(__name__)


class Receiver(CoreReceiver):  # type: ignore[misc]  # the core is untyped
    """Answers every request, and wakes whoever waits for the end.

    Mends C7 (any fault in one request ends the service) and C9 (the end is looked for twice a second). Can go when the
    core's listener survives a failed request and signals its end.
    """

    def __init__(self, handler: Any, ifaces: List[Any]) -> None:
        self.ended = asyncio.Event()
        super().__init__(handler, ifaces)

    @override
    def set_finish(self, finished: bool) -> None:
        super().set_finish(finished)
        if finished:
            self.ended.set()

    @override
    async def _listen(self, iface: Any) -> None:
        self._started_iface(iface)
        try:
            while True:
                request = await iface.receive()
                if request is None:
                    return
                response = await self.answer(request, iface)
                await iface.reply(json.dumps(response.to_dict()))
        finally:
            self._stopped_iface(iface)

    async def answer(self, request: Dict[str, Any], iface: Any = None) -> Response:
        """Return the response to a request."""
        if request.get("request") != "submit":  # of those there may be one a job, and the job has its own lines
            _logger.info("request %s", request.get("request"))
        if request.pop("again", False) and request.get("request") == "submit":
            request["jobs"] = self._not_taken_yet(request["jobs"])
            if not request["jobs"]:
                return Response.ok("they were submitted before")
        checked = CoreReceiver._validate(request)
        if checked.is_error:
            _logger.warning("refused: %s", checked.msg)
            return Response.error(checked.msg)
        return await self._handle_request(iface, checked.request)

    def _not_taken_yet(self, jobs: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        """Return those that are not here: the request may have come before, to us or to whose run we have taken up."""
        return [job for job in jobs if not self._handler._manager.job_list.exist(job["name"])]
