"""A ``concurrent.futures.Executor`` over the QCG-PilotJob manager: many jobs inside one allocation.

The names are imported when they are first used: the manager process is part of this package too, and need not load
the client's half to start.
"""

import importlib
from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api.allocation import Allocation, AllocationStatus
    from qcg.pilotjob.executor_api.call_errors import (
        BrokenCall,
        CallFailed,
        CallTimeout,
        CallUnreadable,
        RemoteTraceback,
        WorkerDied,
    )
    from qcg.pilotjob.executor_api.errors import (
        AllocationEnded,
        AllocationFailed,
        DuplicateJobName,
        ExecutorClosed,
        InvalidJob,
        InvalidOption,
        JobFailed,
        JobRefused,
        JobTimeout,
        JobUnknown,
        ManagerDied,
        ManagerStartError,
        MissingParameter,
        QCGPJError,
        TemplateError,
    )
    from qcg.pilotjob.executor_api.functions import FunctionFuture, FunctionPool
    from qcg.pilotjob.executor_api.jobs import (
        Dependencies,
        Execution,
        Iteration,
        IterationInfo,
        Job,
        JobInfo,
        Resources,
        Size,
    )
    from qcg.pilotjob.executor_api.progress_bars import progress
    from qcg.pilotjob.executor_api.qcgpj_executor import QCGPJExecutor
    from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture
    from qcg.pilotjob.executor_api.run_record import RunFailure, RunRecord, RunRow, RunSummary
    from qcg.pilotjob.executor_api.templates import (
        BasicTemplate,
        IterationTemplate,
        JSONTemplate,
        ParallelTemplate,
        QCGPJTemplate,
        ScriptTemplate,
    )

__all__ = [
    "Allocation",
    "AllocationEnded",
    "AllocationFailed",
    "AllocationStatus",
    "BasicTemplate",
    "BrokenCall",
    "CallFailed",
    "CallTimeout",
    "CallUnreadable",
    "Dependencies",
    "DuplicateJobName",
    "Execution",
    "ExecutorClosed",
    "FunctionFuture",
    "FunctionPool",
    "InvalidJob",
    "InvalidOption",
    "Iteration",
    "IterationInfo",
    "IterationTemplate",
    "JSONTemplate",
    "Job",
    "JobFailed",
    "JobInfo",
    "JobRefused",
    "JobTimeout",
    "JobUnknown",
    "ManagerDied",
    "ManagerStartError",
    "MissingParameter",
    "ParallelTemplate",
    "QCGPJError",
    "QCGPJExecutor",
    "QCGPJFuture",
    "QCGPJTemplate",
    "RemoteTraceback",
    "Resources",
    "RunFailure",
    "RunRecord",
    "RunRow",
    "RunSummary",
    "ScriptTemplate",
    "Size",
    "TemplateError",
    "WorkerDied",
    "progress",
]

_HOMES = {
    "Allocation": "allocation",
    "AllocationEnded": "errors",
    "AllocationFailed": "errors",
    "AllocationStatus": "allocation",
    "BasicTemplate": "templates",
    "BrokenCall": "call_errors",
    "CallFailed": "call_errors",
    "CallTimeout": "call_errors",
    "CallUnreadable": "call_errors",
    "Dependencies": "jobs",
    "DuplicateJobName": "errors",
    "Execution": "jobs",
    "ExecutorClosed": "errors",
    "FunctionFuture": "functions",
    "FunctionPool": "functions",
    "InvalidJob": "errors",
    "InvalidOption": "errors",
    "Iteration": "jobs",
    "IterationInfo": "jobs",
    "IterationTemplate": "templates",
    "JSONTemplate": "templates",
    "Job": "jobs",
    "JobFailed": "errors",
    "JobInfo": "jobs",
    "JobRefused": "errors",
    "JobTimeout": "errors",
    "JobUnknown": "errors",
    "ManagerDied": "errors",
    "ManagerStartError": "errors",
    "MissingParameter": "errors",
    "ParallelTemplate": "templates",
    "QCGPJError": "errors",
    "QCGPJExecutor": "qcgpj_executor",
    "QCGPJFuture": "qcgpj_future",
    "QCGPJTemplate": "templates",
    "RemoteTraceback": "call_errors",
    "Resources": "jobs",
    "RunFailure": "run_record",
    "RunRecord": "run_record",
    "RunRow": "run_record",
    "RunSummary": "run_record",
    "ScriptTemplate": "templates",
    "Size": "jobs",
    "TemplateError": "errors",
    "WorkerDied": "call_errors",
    "progress": "progress_bars",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})
