"""One job iteration in an allocation: what LocalJob is on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
from functools import partial
from pathlib import Path
from typing import Any, List, Mapping, Optional

from qcg.pilotjob.executor_api._execution import models
from qcg.pilotjob.executor_api._execution.local_job import LocalJob
from qcg.pilotjob.executor_api._execution.nodes import NodeLauncher
from qcg.pilotjob.executor_api._execution.pool import ranks_of
from qcg.pilotjob.executor_api._processes.spawning import NOT_EXECUTABLE, STREAMS
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.rules import MPI_MODELS
from qcg.pilotjob.executor_api._shared.times import RecordTime

_logger = logging.getLogger(__name__)


class NodeJob(LocalJob):
    """A job iteration as a group of processes on the first of its nodes, started by the agent there.

    In place of the core's LauncherExecutionJob. Beside what LocalJob mends: jobs on a node that has gone are EXECUTING
    for ever, and files for Slurm are left in the user's directory. Can go with LocalJob, when the core fails such jobs.
    """

    _lost_message = ""
    _has_ended = False  # its first process

    def __init__(self, executor: Any, envs: Any, allocation: Any, job_iteration: Any, schema: Any) -> None:
        super().__init__(executor, envs, allocation, job_iteration, schema)
        self.launcher: Optional[NodeLauncher] = executor._manager.agents.launcher
        # an allocation that was released has forgotten its nodes
        self._nodes: List[str] = [part.node.name for part in allocation.nodes]
        self._cores: List[str] = list(allocation.nodes[0].cores)
        self._temporary: List[str] = []

    def runs_on(self, node: str) -> bool:
        """Return whether the job was given cores of `node`."""
        return node in self._nodes

    def node_lost(self, node: str, message: str) -> None:
        """End what is left of it without `node`, and fail."""
        if self._has_ended:
            return  # and is no more than looked for on the other nodes
        if node == self._nodes[0]:
            self._vanish(message)
        elif not self._lost_message:
            self._lost_message = message
            self._end()

    def ended(self, exit_code: int, message: Optional[str]) -> None:
        """Take the news that the job's first process has ended, with all that came from it; called by the launcher.

        What Slurm or a daemon of MPI has started for it, on any of its nodes, may be left; it ends when nothing is.
        """
        if self._lost_message and not self.canceled:
            self._vanish(self._lost_message)
            return
        self._has_ended = True
        if self._walltime_timer is not None:
            self._walltime_timer.cancel()
        if self.launcher is not None and self._may_have_left_something():
            self.launcher.sweep(self, self._nodes, partial(self._nothing_left, exit_code, message))
        else:
            self._nothing_left(exit_code, message)

    def _may_have_left_something(self) -> bool:
        uses_slurm = self.job_execution.model in MPI_MODELS and self.ncores > 1
        return self.nnodes > 1 or uses_slurm or self.canceled or self._over_walltime

    def _nothing_left(self, exit_code: int, message: Optional[str]) -> None:
        lost = [name for name in self._nodes if self.launcher is not None and self.launcher.why_lost(name)]
        if lost and exit_code and not self.canceled and not self._over_walltime:
            # srun or mpirun may miss a node before its agent's end is heard of
            assert self.launcher is not None
            self._vanish(f"node {lost[0]} is lost: {self.launcher.why_lost(lost[0])}")
            return
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
        self.setup_sandbox()
        execution = self.job_execution
        # for srun they are options, and then they are no longer in the description
        named = {name: getattr(execution, name) for name in STREAMS}
        self._note({name: os.path.join(self.wd_path, path) for name, path in named.items() if path})
        self._prepare_env()
        if self.ncores > 1:
            self._apply_model(execution.model or "default")
        self._resolve_mods_venv()

    @override
    def _prepare_env(self) -> None:
        assert self.launcher is not None
        execution, parts, directory = self.job_execution, self.allocation.nodes, Path(self._executor.aux_dir)
        self.env_opts["nohostfile"] = True
        super()._prepare_env()
        files = models.step_files(parts, directory, self.jid)
        is_all = self.nnodes == models.nodes_of_allocation(os.environ)
        given = execution.env or {}
        variables = models.step_variables(parts, is_all=is_all, hostfile=next(iter(files)))
        self.env.update({name: value for name, value in variables.items() if name not in given})
        if self._is_bound:  # also a job with all that the allocation has of a node, which may not be all of the node
            own = given.get("SLURM_TASK_PROLOG", os.environ.get("SLURM_TASK_PROLOG", ""))
            prolog = directory / f"{self.jid}.binding"
            files[prolog] = models.task_prolog(parts, own)
            self.env["SLURM_TASK_PROLOG"] = str(prolog)
            given = {**given, "SLURM_TASK_PROLOG": str(prolog)}
        if not is_all and self.launcher.srun is not None and execution.model not in MPI_MODELS:
            self.env["PATH"] = models.path_with(self.launcher.srun, given.get("PATH", os.environ.get("PATH", "")))
        self._write(files)
        self.env.pop("CUDA_VISIBLE_DEVICES", None)  # what the core has set is the first node's, for all nodes
        changes, made = self.launcher.gpus.job_environment(parts, given, self.jid)
        self.env.update(changes)
        self._temporary += made

    @property
    def _is_bound(self) -> bool:
        return bool(self._schema.resources.binding)

    def _apply_model(self, model: str) -> None:
        """Put what starts the ranks in front of the program; a job on one core needs nothing."""
        execution, directory = self.job_execution, Path(self._executor.aux_dir)
        program = [execution.exec, *execution.args] if execution.exec else []
        if model not in MPI_MODELS:
            if self._is_bound:
                self.env["QCG_PM_CPU_SET"] = ",".join(core for part in self.allocation.nodes for core in part.cores)
            if model == "threads":
                self.env.setdefault("SLURM_CPUS_PER_TASK", str(self.ncores))
            return
        parts, wanted, options = self.allocation.nodes, self.job_iteration.job.resources, execution.model_opts
        count = ranks_of(execution)
        ranks = models.ranks_in(parts, count, on_each_node=wanted.has_nodes)
        if count and "OMP_NUM_THREADS" not in (execution.env or {}):
            self.env["OMP_NUM_THREADS"] = str(len(ranks[0].cores))
        if model == "openmpi":
            rankfile = directory / f"{self.jid}.rankfile"
            start = models.start_with_openmpi(ranks, options, rankfile, binds=self._is_bound)
        elif model == "intelmpi":
            program = program or self._shell_for(execution.script, of_rank=True)
            debug = _logger.isEnabledFor(logging.DEBUG)
            start = models.start_with_intelmpi(ranks, options, program, binds=self._is_bound, debug=debug)
            if self.nnodes > 1:
                assert self.launcher is not None
                start = start._replace(command=self.launcher.gpus.for_hydra(start.command, parts, execution.env))
            program, execution.script = [], None
        else:
            streams, name = self._streams_of_srun(), f"{self.jid}.ranks"
            start = models.start_with_srun(ranks, options, streams, directory, name, binds=self._is_bound)
        self.env.update(start.env)
        self._write(start.files)
        command = [*start.command, *program]
        execution.exec, execution.args = command[0], command[1:]

    def _streams_of_srun(self) -> List[str]:
        """Return the options of srun for the job's files, which it opens on each node, and for its walltime."""
        execution, options = self.job_execution, []
        for option, name in (("-i", "stdin"), ("-o", "stdout"), ("-e", "stderr")):
            if getattr(execution, name):
                options += [option, os.path.join(self.wd_path, getattr(execution, name))]
                setattr(execution, name, None)
        walltime = self.job_iteration.job.resources.wt
        return [*options, "--time", f"0:{int(walltime.total_seconds())}"] if walltime else options

    def _write(self, files: Mapping[Path, str]) -> None:
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
            path.chmod(0o700)
            self._temporary.append(str(path))

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
            self.launcher.end(self, self._nodes[0], self.settings.grace)

    def _vanish(self, message: str) -> None:
        """End without an exit code, since nobody has seen how the process ended; or start again on another node."""
        if self._walltime_timer is not None:
            self._walltime_timer.cancel()
        if self.launcher is not None:
            self.launcher.forget(self, self._nodes)
        self._remove_temporary()
        if not self.canceled and self._executor._manager.run_again(self, message, self.settings.restarts):
            return
        if not self.canceled:
            self._executor._manager.interruptions.add(self.job_iteration.job, self.job_iteration.iteration)
        self._note({"rtime": str(RecordTime.now() - self._start_time), "pname": self.process_name})
        self.error_message = None if self.canceled else message
        self._leave(-9)

    def _remove_temporary(self) -> None:
        for path in self._temporary:
            with contextlib.suppress(OSError):  # it was removed with its directory
                os.unlink(path)
