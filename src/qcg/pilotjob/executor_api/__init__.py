"""A ``concurrent.futures.Executor`` over the QCG-PilotJob manager: many jobs inside one allocation."""

from qcg.pilotjob.executor_api.errors import (
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
from qcg.pilotjob.executor_api.jobs import (
    Dependencies,
    Execution,
    Iteration,
    Job,
    JobInfo,
    Resources,
    Size,
)
from qcg.pilotjob.executor_api.qcgpj_executor import QCGPJExecutor
from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture
from qcg.pilotjob.executor_api.templates import (
    BasicTemplate,
    IterationTemplate,
    JSONTemplate,
    ParallelTemplate,
    QCGPJTemplate,
    ScriptTemplate,
)

__all__ = [
    "BasicTemplate",
    "Dependencies",
    "DuplicateJobName",
    "Execution",
    "ExecutorClosed",
    "InvalidJob",
    "InvalidOption",
    "Iteration",
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
    "Resources",
    "ScriptTemplate",
    "Size",
    "TemplateError",
]
