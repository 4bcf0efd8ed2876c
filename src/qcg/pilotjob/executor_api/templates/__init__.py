"""Templates: descriptions of jobs with placeholders, ready to be given to ``QCGPJExecutor.submit``."""

from qcg.pilotjob.executor_api.templates.basic_template import BasicTemplate
from qcg.pilotjob.executor_api.templates.iteration_template import IterationTemplate
from qcg.pilotjob.executor_api.templates.json_template import JSONTemplate
from qcg.pilotjob.executor_api.templates.parallel_template import ParallelTemplate
from qcg.pilotjob.executor_api.templates.qcgpj_template import QCGPJTemplate
from qcg.pilotjob.executor_api.templates.script_template import ScriptTemplate

__all__ = [
    "BasicTemplate",
    "IterationTemplate",
    "JSONTemplate",
    "ParallelTemplate",
    "QCGPJTemplate",
    "ScriptTemplate",
]
