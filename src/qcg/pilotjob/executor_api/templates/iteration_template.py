"""The template for an array: one description, many iterations."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api.templates.qcgpj_template import QCGPJTemplate

__all__ = ["IterationTemplate"]


class IterationTemplate(QCGPJTemplate):
    """A program that is run once for each iteration, with ``${it}`` and ``${itval}`` in its texts.

    Parameters: `name` and `exec` are required, and either `stop` (the iterations ``start <= ${it} < stop``, `start`
    being 0 by default) or `values` (a list, through which ``${itval}`` runs). `args` (a list), `env` (a dictionary),
    `wd`, `stdout` and `stderr` (by default ``<name>.<it>.out`` and ``<name>.<it>.err``), `cores` and `gpus` (of each
    iteration, 1 and none), `walltime` (of each iteration) and `after` (futures or names) as elsewhere.
    """

    @staticmethod
    @override
    def template() -> Tuple[str, Dict[str, Any]]:
        text = """
        {
            "name": "${name}",
            "iteration": {"start": ${start}, "stop": ${stop}, "values": ${values}},
            "execution": {
                "exec": "${exec}",
                "args": ${args},
                "env": ${env},
                "wd": "${wd}",
                "stdout": "${stdout}",
                "stderr": "${stderr}"
            },
            "resources": {"numCores": ${cores}, "gpus": ${gpus}, "wt": "${walltime}"},
            "dependencies": {"after": ${after}}
        }
        """
        defaults: Dict[str, Any] = {
            "start": None,
            "stop": None,
            "values": None,
            "args": [],
            "env": {},
            "wd": ".",
            "stdout": "${jname}.${it}.out",
            "stderr": "${jname}.${it}.err",
            "cores": 1,
            "gpus": None,
            "walltime": "",
            "after": [],
        }
        return text, defaults
