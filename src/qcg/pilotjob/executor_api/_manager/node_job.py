"""One job iteration in an allocation: what LocalJob is on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import datetime
from typing import Any, Callable, Dict, List, Optional

from qcg.pilotjob.executor_api._manager.execution import LocalJob
from qcg.pilotjob.executor_api._manager.nodes import NodeLauncher
from qcg.pilotjob.executor_api._manager.slurm import Wanted
from qcg.pilotjob.executor_api._manager.spawning import NOT_EXECUTABLE, STREAMS
from qcg.pilotjob.executor_api._overriding import override


class NodeJob(LocalJob):
    """A job iteration as a group of processes on the first of its nodes, started by the agent there.

    In place of the core's LauncherExecutionJob. Beside what LocalJob mends: jobs on a node that has gone are EXECUTING
    for ever, and files for Slurm are left in the user's directory. Can go with LocalJob, when the core fails such jobs.
    """

    launcher: Optional[NodeLauncher] = None
    umask = 0o022
    restarts = 0
    loss_seconds = 0.0
    """For which a node that has gone is not called lost: it may be the first of an allocation that ends."""
    tell_waiting: Callable[[Dict[str, bool]], None] = lambda _: None
    tell_note: Callable[[str], None] = lambda _: None
    wanted = Wanted()

    _lost_message = ""

    @classmethod
    def start_agents(
        cls, config: Dict[Any, Any], _wdir: str, aux_dir: str, nodes: List[Any], _binding: bool, manager: Any
    ) -> None:
        """Start an agent on each node; called by the core's executor, before the loop runs."""
        cls.launcher = NodeLauncher(config, aux_dir, cls.children)
        cls.launcher.on_waiting = cls.tell_waiting
        cls.launcher.on_note = cls.tell_note
        loop = asyncio.get_event_loop()
        nodes = list(nodes)
        loop.run_until_complete(cls.launcher.start(manager.resources, cls.wanted, cls.umask))
        manager.resources.keep_core()
        cls.launcher.on_ready = lambda _: manager.node_ready()
        cls.launcher.on_unfit = manager.node_unfit
        cls.launcher.on_leaving = manager.drop_node
        cls.launcher.on_lost = lambda name, why: manager.node_gone(name, why, cls.loss_seconds)
        for node in nodes:  # it may be enough when some of them are ready
            if cls.launcher.why_lost(node.name):
                loop.call_soon(manager.node_lost, node.name, cls.launcher.why_lost(node.name))

    @classmethod
    async def stop_agents(cls) -> None:
        """End them; called by the core's executor."""
        if cls.launcher is not None:
            await cls.launcher.stop()
            cls.launcher = None

    def __init__(self, executor: Any, envs: Any, allocation: Any, job_iteration: Any, schema: Any) -> None:
        super().__init__(executor, envs, allocation, job_iteration, schema)
        # an allocation that was released has forgotten its nodes
        self._nodes: List[str] = [part.node.name for part in allocation.nodes]
        self._cores: List[str] = list(allocation.nodes[0].cores)
        self._temporary: List[str] = []

    def runs_on(self, node: str) -> bool:
        """Whether it was given cores of `node`."""
        return node in self._nodes

    def node_lost(self, node: str, message: str) -> None:
        """End what is left of it without `node`, and fail."""
        if node == self._nodes[0]:
            self._vanish(message)
        elif not self._lost_message:
            self._lost_message = message
            self._end()

    def ended(self, exit_code: int, message: Optional[str]) -> None:
        """Nothing of it is left; called by the launcher."""
        if self._lost_message and not self.canceled:
            self._vanish(self._lost_message)
        else:
            self._remove_temporary()
            self._ended(exit_code, message)

    def not_started_here(self, message: str) -> None:
        """Start on another node, since this one cannot start it, or fail; called by the launcher."""
        if self._walltime_timer is not None:
            self._walltime_timer.cancel()
        self._remove_temporary()
        if self.canceled or not self._executor._manager.start_again(self, f"node {self._nodes[0]}: {message}"):
            self._ended(NOT_EXECUTABLE, f"node {self._nodes[0]}: {message}")

    @override
    def setup_sandbox(self) -> None:
        super(LocalJob, self).setup_sandbox()  # files are written there before the job starts

    @override
    def preprocess(self) -> None:
        # the schema of a model hands them to srun, and then they are no longer in the description
        named = {name: getattr(self.job_execution, name) for name in STREAMS}
        super().preprocess()
        self._note({name: os.path.join(self.wd_path, path) for name, path in named.items() if path})

    @override
    def _prepare_env(self) -> None:
        hostfile = os.path.join(self._executor.aux_dir, f"{self.jid}.hostfile")
        with open(hostfile, "w", encoding="utf-8") as file:
            file.writelines(f"{part.node.name}\n" * part.ncores for part in self.allocation.nodes)
        self._temporary.append(hostfile)
        if self.job_execution.model == "openmpi":  # for which the core's schema writes another one
            self._temporary.append(os.path.join(self.wd_path, f".{self.job_iteration.name}.rankfile"))
        self.env_opts["nohostfile"] = True
        super()._prepare_env()
        self.env["SLURM_HOSTFILE"] = hostfile
        self._add_gpus()

    def _add_gpus(self) -> None:
        assert self.launcher is not None
        gpus, execution, parts = self.launcher.gpus, self.job_execution, self.allocation.nodes
        self.env.pop("CUDA_VISIBLE_DEVICES", None)  # what the core has set is the first node's, for all nodes
        changes, files = gpus.job_environment(parts, execution.env, self.jid)
        self.env.update(changes)
        self._temporary += files
        if execution.model == "intelmpi" and len(parts) > 1:
            execution.args = gpus.for_hydra(execution.args, parts, execution.env)

    @override
    def _modelled(self, command: List[str]) -> List[str]:
        return command  # the schema has done that

    @override
    def _start(self) -> None:
        assert self.launcher is not None
        lost = self.launcher.why_lost(self._nodes[0])
        if lost:
            self._vanish(f"node {self._nodes[0]} is lost: {lost}")
            return
        execution = self.job_execution
        self.launcher.run(
            self,
            self._nodes[0],
            self.job_iteration.name,
            [execution.exec, *execution.args],
            self.env,
            cwd=self.wd_path,
            files=self._files(),
            cores=self._cores,
        )
        self._limit_walltime()

    @override
    def _end(self) -> None:
        if self.launcher is not None:
            self.launcher.end(self, self._nodes[0], self.grace)

    def _vanish(self, message: str) -> None:
        """End without an exit code, since nobody has seen how the process ended; or start again on another node."""
        if self._walltime_timer is not None:
            self._walltime_timer.cancel()
        if self.launcher is not None:
            self.launcher.forget(self, self._nodes)
        self._remove_temporary()
        if not self.canceled and self._executor._manager.run_again(self, message, self.restarts):
            return
        if not self.canceled:
            self._executor._manager.interruptions.add(self.job_iteration.job, self.job_iteration.iteration)
        self._note({"rtime": str(datetime.now() - self._start_time), "pname": self.process_name})
        self.error_message = None if self.canceled else message
        self._leave(-9)

    def _remove_temporary(self) -> None:
        for path in self._temporary:
            with contextlib.suppress(OSError):  # it was removed with its directory
                os.unlink(path)
