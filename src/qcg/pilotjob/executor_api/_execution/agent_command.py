"""The command that starts the agent of a node, and its environment."""

from __future__ import annotations

import os
import re
import shlex
from typing import Any, Dict, List, Mapping

from qcg.pilotjob.executor_api._execution.gpus import agent_environment
from qcg.pilotjob.executor_api._execution.slurm import component_of
from qcg.pilotjob.executor_api._shared import python_process
from qcg.pilotjob.executor_api._shared.proc import AGENT_OF

__all__ = ["agent_command", "srun_environment"]

_OPTIONS_OF_SRUN = (
    r"SLURM_(CPUS_PER_TASK|NTASKS|NPROCS|NTASKS_PER_\w+|TRES_PER_TASK|HINT|THREADS_PER_CORE|CORE_SPEC|THREAD_SPEC|EXACT|"
    r"EXCLUSIVE|WHOLE|DISTRIBUTION|HOSTFILE|CPU_BIND\w*|MEM_\w+|LABELIO|UNBUFFEREDIO|STD(IN|OUT|ERR)MODE|OPEN_MODE|WAIT|"
    r"KILL_BAD_EXIT|MULTI_PROG|TIMELIMIT|IMMEDIATE|EXPORT_ENV|CPU_FREQ_REQ|RESV_PORTS|RELATIVE|DEPENDENCY|PTY\w*)$"
    r"|SRUN_"
)


def agent_command(
    node: Any, method: str, directory: str, options: List[str], environment: Mapping[str, str]
) -> List[str]:
    """Return the command that starts the agent of `node` by srun or ssh, to be run in that `environment`."""
    agent = python_process.command("_agent.agent", "qcgpj-agent", node.name)
    if method == "ssh":
        mark = f"{AGENT_OF}={shlex.quote(environment[AGENT_OF])}"
        return ["ssh", node.name, f"cd {shlex.quote(directory)} && {mark} exec {shlex.join(agent)}"]
    # Without a number of CPUs, and without --exact, a step has all CPUs and all memory that the job has on the node.
    step = ["srun", "--job-name", f"agent-{node.name}", "--nodelist", node.name, "--nodes=1", "--ntasks=1", "--mem=0"]
    component = component_of(os.environ)
    if component is not None:
        step.append(f"--het-group={component[0]}")
    step += ["--cpu-bind=none", "--export=ALL", "--overcommit", "--overlap", "--chdir", directory]
    return [*step, *options, *agent]


def srun_environment(sockets: str) -> Dict[str, str]:
    """Return this process's environment without srun's options in it: they are for the steps of the user.

    The manager's directory of `sockets` marks the agent as its own.
    """
    environment = agent_environment(os.environ)
    kept = {name: value for name, value in environment.items() if not re.match(_OPTIONS_OF_SRUN, name)}
    return {**kept, AGENT_OF: sockets}
