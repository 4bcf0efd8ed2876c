"""The connection to the agent of one node, and the process of srun or ssh that keeps the agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Protocol

from qcg.pilotjob.executor_api._agent.messages import Lines
from qcg.pilotjob.executor_api._execution.gpus import agent_environment
from qcg.pilotjob.executor_api._execution.slurm import component_of
from qcg.pilotjob.executor_api._processes.children import Child, Children
from qcg.pilotjob.executor_api._processes.spawning import OWN_GROUP
from qcg.pilotjob.executor_api._shared import python_process
from qcg.pilotjob.executor_api._shared.proc import AGENT_OF
from qcg.pilotjob.executor_api._shared.run_files import tail
from qcg.pilotjob.executor_api._shared.texts import end_text

__all__ = ["ANSWER_SECONDS", "Launcher", "NodeLink", "agent_command", "srun_environment"]

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


ANSWER_SECONDS = 30.0  # an agent answers at once, unless its machine or a file system stands still


_LEAVE_SECONDS = 1.5  # for an agent to end its jobs and itself


_LAST_WORDS_SECONDS = 0.5  # for srun to say why an agent has ended


_KILL_SECONDS = 1.0  # for a srun that was told to end


class Launcher(Protocol):
    """Has the agents of all nodes, and is told what each of them says."""

    def started(self, job: str, pid: Optional[int]) -> None:
        """Take the news that the agent has taken an order."""

    def not_started(self, link: NodeLink, job: str, why: str) -> None:
        """Take the news that a job has not started for a reason of its node."""

    def swept(self, job: str, node: str) -> None:
        """Take the news that nothing of a job is left on a node."""

    def ended(self, job: str, code: int, message: Optional[str]) -> None:
        """Take the news that nothing is left of a job."""

    def is_ready(self, link: NodeLink) -> None:
        """Take the news that a node can be used."""

    def is_leaving(self, link: NodeLink) -> None:
        """Take the news that a node will be lost."""

    def is_lost(self, link: NodeLink) -> None:
        """Take the news that a node is no more."""

    def has_changed(self) -> None:
        """Take the news that something has changed that may be waited for."""


class NodeLink:
    """One node: its agent, and the srun (or ssh) process that keeps it.

    The end of that process, or of what it hands on, is the end of the node for us: Slurm ends it when the node, the
    agent or the allocation has gone.

    Attributes:
        ready: whether the agent has answered, and not gone since.
        lost: why the node is no more, or nothing.
        found: the cores that the agent has found there, as `cores_here.CoresHere` has them, and the GPUs.
        failures: how many starts have failed in a row that would not fail on another node.
    """

    def __init__(self, node: Any, log: Path, children: Children, launcher: Launcher) -> None:
        self.node = node
        self.name: str = node.name
        self.log = log
        self.ready = False
        self.lost = ""
        self.found: Dict[str, Any] = {}
        self.failures = 0
        self._children = children
        self._launcher = launcher
        self._loop = asyncio.get_event_loop()
        self._process: Optional[Child] = None
        self._lines: Optional[Lines] = None
        self._due = 0
        self._patience: Optional[asyncio.TimerHandle] = None
        self._cause = ""

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process is None

    def start(self, command: List[str], environment: Dict[str, str], orders: Dict[str, Any]) -> None:
        """Start the agent; it will be `ready`, or `lost`.

        Raises:
            OSError: the process cannot be started.
        """
        with self.log.open("ab") as log, contextlib.ExitStack() as its, contextlib.ExitStack() as ours:
            to_agent, from_us = os.pipe()
            its.callback(os.close, to_agent)
            ours.callback(os.close, from_us)
            from_agent, to_us = os.pipe()
            its.callback(os.close, to_us)
            ours.callback(os.close, from_agent)
            process = subprocess.Popen(command, stdin=to_agent, stdout=to_us, stderr=log, env=environment, **OWN_GROUP)
            ours.pop_all()
        process.returncode = 0  # the children are waited for by their process id
        self._process = Child("", self._process_ended)
        self._children.adopt(process.pid, self._process)
        first = json.dumps(orders).encode() + b"\n"
        self._lines = Lines(self._loop, from_agent, from_us, self._hear, self._stream_ended, to_agent=True, first=first)

    def send(self, message: Dict[str, Any]) -> None:
        """Send what the agent has to answer; a node whose agent does not is given up."""
        assert self._lines is not None
        self._lines.send(message)
        self._due += 1
        if self._patience is None:
            self._wait_for_answer()

    def leave(self) -> None:
        """Tell the agent to end: it ends its jobs, if there are any, and then itself."""
        if self._lines is not None and not self.ended:
            self._lines.close_target()
            self._stop_waiting()
            self._patience = self._loop.call_later(_LEAVE_SECONDS, self.give_up)

    def give_up(self) -> None:
        """End the process, and with it what Slurm started for it: nothing that it runs may come back to life."""
        if self._process is not None:
            self._children.end(self._process, _KILL_SECONDS)

    def close(self) -> None:
        """Hear no more of it."""
        self._stop_waiting()
        if self._lines is not None:
            self._lines.close()

    def last_words(self) -> str:
        """Return what Slurm says of the end."""
        said = [line for line in tail(self.log, 30).splitlines() if line.startswith(("srun: error", "slurmstepd"))]
        return "; ".join(dict.fromkeys(line.partition("error: ")[2] or line for line in said[-3:]))

    def _wait_for_answer(self) -> None:
        self._patience = self._loop.call_later(ANSWER_SECONDS, self._silent)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _silent(self) -> None:
        self._cause = f"its agent has not answered for {ANSWER_SECONDS:g} s"
        self._launcher.is_leaving(self)
        self.give_up()

    def _hear(self, message: Dict[str, Any]) -> None:
        try:
            self._heard(message)
        except Exception as error:
            if not self._cause:
                self._cause = f"what its agent has sent could not be handled: {error!r}"
                self._launcher.is_leaving(self)
            self.give_up()  # what runs there might never be heard of
            raise

    def _heard(self, message: Dict[str, Any]) -> None:
        if self.lost:
            return
        if "did" in message:
            self._due -= "late" not in message
            self._stop_waiting()
            if self._due:
                self._wait_for_answer()
            if "pid" in message:
                self.failures = 0
            self._launcher.started(message["did"], message.get("pid"))
        elif message.get("blames_node"):
            self._launcher.not_started(self, message["ended"], message["message"])
        elif "swept" in message:
            self._launcher.swept(message["swept"], self.name)
        elif "ended" in message:
            self._launcher.ended(message["ended"], message["code"], message.get("message"))
        elif "ready" in message:
            self.ready = True
            self.found = message["ready"]
            self._launcher.is_ready(self)
        elif "leaving" in message:
            self._cause = message["leaving"]
            self._launcher.is_leaving(self)
            self._loop.call_later(_LEAVE_SECONDS, self.give_up)

    def _stream_ended(self) -> None:
        self._loop.call_later(_LAST_WORDS_SECONDS, self.give_up)

    def _process_ended(self, code: int) -> None:
        self._process = None
        self._cause = self._cause or self.last_words() or f"its agent {end_text(code)}"
        self._is_lost()
        self._launcher.has_changed()

    def _is_lost(self) -> None:
        if not self.lost:
            self.ready = False
            self.lost = self._cause
            self.close()
            self._launcher.is_lost(self)
