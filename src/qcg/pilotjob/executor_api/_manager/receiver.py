"""From a request to its reply."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, Dict, List

from qcg.pilotjob.errors import InvalidRequest
from qcg.pilotjob.receiver import Receiver as CoreReceiver
from qcg.pilotjob.request import Request, SubmitReq
from qcg.pilotjob.response import Response

from qcg.pilotjob.executor_api._shared.overriding import override

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
                await iface.reply(await self._reply_to(request, iface))
        finally:
            self._stopped_iface(iface)

    async def _reply_to(self, request: Dict[str, Any], iface: Any) -> str:
        """Return the text of a reply, whatever the request is: without one its sender, and all others, would wait."""
        try:
            return json.dumps((await self.answer(request, iface)).to_dict())
        except Exception as error:
            _logger.exception("a request failed")
            return json.dumps(Response.error(f"the request failed: {type(error).__name__}: {error}").to_dict())

    async def answer(self, request: Dict[str, Any], iface: Any = None) -> Response:
        """Return the response to a request."""
        if request.get("request") != "submit":  # of those there may be one a job, and the job has its own lines
            _logger.info("request %s", request.get("request"))
        is_sent_again = request.pop("again", False)
        try:
            parsed = Request.parse(request)
            handle = self._handlers[type(parsed)]
        except InvalidRequest as error:
            return _refused(str(error))
        except Exception as error:  # noqa: BLE001  # the core reads whatever it is given
            return _refused(f"{type(error).__name__}: {error}")
        if is_sent_again and isinstance(parsed, SubmitReq):
            parsed.jobs = self._not_taken_yet(parsed.jobs)
            if not parsed.jobs:
                return Response.ok("they were submitted before")
        response: Response = await handle(iface, parsed)
        return response

    def _not_taken_yet(self, jobs: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        """Return those that are not here: the request may have come before, to us or to whose run we have taken up."""
        return [job for job in jobs if not self._handler._manager.job_list.exist(job["req"]["name"])]


def _refused(why: str) -> Response:
    _logger.warning("refused: %s", why)
    return Response.error(f"Invalid request: {why}")
