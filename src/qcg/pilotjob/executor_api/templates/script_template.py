"""The template for a shell script."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api.templates.qcgpj_template import QCGPJTemplate

__all__ = ["ScriptTemplate"]


class ScriptTemplate(QCGPJTemplate):
    """Lines of shell, run by ``bash``.

    Parameters: `name` and `script` are required. `modules` are loaded before. With `modules`, or with `login` true, it
    is a login shell, which reads the user's profile and so knows ``module``; with `login` false it is none. `stdout`
    and `stderr` are files, by default ``<name>.out`` and ``<name>.err``; `wd` a directory below the executor's, which
    is the default; `cores` 1; `gpus` none; `env` a dictionary of variables; `after` a list of futures or job names that
    must succeed first; `walltime` like ``1h30m``, none by default.
    """

    @staticmethod
    @override
    def template() -> Tuple[str, Dict[str, Any]]:
        text = """
        {
            "name": "${name}",
            "execution": {
                "script": "${script}",
                "modules": ${modules},
                "login": ${login},
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
            "modules": [],
            "login": None,
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
