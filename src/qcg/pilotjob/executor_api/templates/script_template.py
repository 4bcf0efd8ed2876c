"""The template for a shell script."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from qcg.pilotjob.executor_api._overriding import override
from qcg.pilotjob.executor_api.templates.qcgpj_template import QCGPJTemplate

__all__ = ["ScriptTemplate"]


class ScriptTemplate(QCGPJTemplate):
    """Lines of shell, run by ``bash`` as a login shell (so that ``module`` is there).

    Parameters: `name` and `script` are required. `stdout` and `stderr` are files, by default ``<name>.out`` and
    ``<name>.err``; `wd` a directory below the executor's, which is the default; `cores` 1; `gpus` none; `env` a
    dictionary of variables; `after` a list of futures or job names that must succeed first; `walltime` like ``1h30m``,
    none by default.
    """

    @staticmethod
    @override
    def template() -> Tuple[str, Dict[str, Any]]:
        text = """
        {
            "name": "${name}",
            "execution": {
                "script": "${script}",
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
            "env": {},
            "wd": ".",
            "stdout": "${jname}.out",
            "stderr": "${jname}.err",
            "cores": 1,
            "gpus": None,
            "walltime": "",
            "after": [],
        }
        return text, defaults
