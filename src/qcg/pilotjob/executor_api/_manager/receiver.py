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
                response = await self._respond(iface, request)
                await iface.reply(json.dumps(response.to_dict()))
        finally:
            self._stopped_iface(iface)

    async def _respond(self, iface: Any, request: Dict[str, Any]) -> Response:
        if request.get("request") != "submit":  # of those there may be one a job, and the job has its own lines
            _logger.info("request %s", request.get("request"))
        checked = CoreReceiver._validate(request)
        if checked.is_error:
            _logger.warning("refused: %s", checked.msg)
            return Response.error(checked.msg)
        return await self._handle_request(iface, checked.request)
