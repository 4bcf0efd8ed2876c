"""This executor and the released one, which has the same interface: jobs are submitted one by one."""

import itertools
import json
from typing import Any, Callable, List

from harness.session import Run, one_by_one
from qcg.pilotjob.executor_api.qcgpj_executor import QCGPJExecutor


class _Session:
    def __init__(self, executor: QCGPJExecutor, command: List[str]) -> None:
        self._executor = executor
        self._template = _template(command)
        self._numbers = itertools.count()

    def run(self, jobs: int) -> Run:
        return one_by_one(
            jobs,
            lambda: self._executor.submit(self._template, name=f"job{next(self._numbers)}"),
            lambda future: list(future.result().items()) == [(future.ids[0], "SUCCEED")],
        )

    def close(self) -> None:
        self._executor.shutdown()


def _template(command: List[str]) -> Callable[[], str]:
    program, *arguments = command
    execution = json.dumps({"exec": program, "args": arguments})
    return lambda: f'{{"name": "${{name}}", "execution": {execution}}}'


def open_session(workers: int, command: List[str], quiet: str = "") -> _Session:
    """Open an executor; `quiet` is "client and manager" of this package, or "released", which has to be told twice."""
    resources = str(workers) if workers else None
    if quiet == "released":
        # its log_level="critical" means "debug" for the client's half
        executor: Any = QCGPJExecutor("--log", "critical", resources=resources)
        from qcg.pilotjob.logger import top_logger

        top_logger.setLevel("CRITICAL")
    elif quiet:
        executor = QCGPJExecutor(resources=resources, log_level="critical")
    else:
        executor = QCGPJExecutor(resources=resources)
    return _Session(executor, command)
