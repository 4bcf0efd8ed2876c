"""The template for a program on one core."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api.templates.qcgpj_template import QCGPJTemplate

__all__ = ["BasicTemplate"]


class BasicTemplate(QCGPJTemplate):
    """A program on one core.

    Parameters: `name` and `exec` are required; `args` (a list, none by default), `stdout` and `stderr` (files, by
    default ``stdout`` and ``stderr``, the same for all jobs), `after` (a list of futures or job names that must succeed
    first).
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
                "stdout": "${stdout}",
                "stderr": "${stderr}"
            },
            "dependencies": {"after": ${after}}
        }
        """
        return text, {"args": [], "stdout": "stdout", "stderr": "stderr", "after": []}
