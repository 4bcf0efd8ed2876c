"""The template for a program on several cores or nodes."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api.templates.qcgpj_template import QCGPJTemplate

__all__ = ["ParallelTemplate"]


class ParallelTemplate(QCGPJTemplate):
    """A program on several cores or nodes.

    Parameters: `name` and `exec` are required. `args` (a list), `env` (a dictionary), `wd`, `stdout` and `stderr`
    (by default ``<name>.out`` and ``<name>.err``), `after` (futures or names) as elsewhere. `cores` is the number of
    cores, on each node when `nodes` is given; a number or ``{'min': 2, 'max': 8}``. Without `nodes` they are on one
    node, except with MPI. `gpus` is the number of GPUs on each node; with it and without `nodes` the job is on one.
    `model` says how the program is started: ``default`` and ``threads`` run it once, with all cores, ``openmpi``,
    ``intelmpi`` and ``srunmpi`` once for each core, or as often as `ranks` says, which share the cores: on each node
    when `nodes` is given. `model_opts` are the model's options. `walltime` like ``1h30m``; `venv` a path; `modules` a
    list, which are loaded in a login shell, unless `login` is False; with `login` True there is one without modules.
    """

    @staticmethod
    @override
    def template() -> Tuple[str, Dict[str, Any]]:
        text = """
        {
            "name": "${name}",
            "execution": {
                "exec": "${exec}",
                "args": ${args},
                "env": ${env},
                "wd": "${wd}",
                "stdout": "${stdout}",
                "stderr": "${stderr}",
                "login": ${login},
                "modules": ${modules},
                "venv": "${venv}",
                "model": "${model}",
                "model_opts": ${model_opts}
            },
            "resources": {
                "numCores": ${cores},
                "numNodes": ${nodes},
                "ranks": ${ranks},
                "gpus": ${gpus},
                "wt": "${walltime}"
            },
            "dependencies": {"after": ${after}}
        }
        """
        defaults: Dict[str, Any] = {
            "args": [],
            "env": {},
            "wd": ".",
            "stdout": "${jname}.out",
            "stderr": "${jname}.err",
            "login": None,
            "modules": [],
            "venv": "",
            "model": "default",
            "model_opts": {},
            "cores": None,
            "nodes": None,
            "ranks": None,
            "gpus": None,
            "walltime": "",
            "after": [],
        }
        return text, defaults
