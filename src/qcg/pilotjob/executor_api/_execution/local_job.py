"""One job iteration on this machine: from its allocation to its end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shlex
from typing import Any, Dict, List, Optional, Tuple

from qcg.pilotjob.executionjob import LocalSchemaExecutionJob
from qcg.pilotjob.joblist import JobExecution

from qcg.pilotjob.executor_api._execution import models
from qcg.pilotjob.executor_api._execution.pool import kind_of, ranks_of
from qcg.pilotjob.executor_api._execution.settings import Settings
from qcg.pilotjob.executor_api._processes.children import Child
from qcg.pilotjob.executor_api._processes.spawning import NODE, NOT_EXECUTABLE, STREAMS, CannotStart, Order
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.rules import MPI_MODELS, in_pieces, replaced
from qcg.pilotjob.executor_api._shared.texts import end_text, signal_named_by_shell

_logger = logging.getLogger(__name__)

_SHELLS = ("bash", "sh", "dash", "ksh", "zsh", "csh", "tcsh", "fish")
_SCRIPT = "QCG_PM_SCRIPT"  # the variable that holds it, which its processes do not inherit
_LOGIN_SHELL = """\
bash -l -c "read -r -u 9 _; exec 9<&-; $1"
code=$?
if read -r -u 9 _; then
    echo "the login shell ended in its profile, before the job began: look for 'exec' and 'exit' in /etc/profile and" \
        "in the first of ~/.bash_profile, ~/.bash_login and ~/.profile" >&2
    exit 126
fi
exit $code
"""  # a line waits at 9 that is taken when the profile is over: a profile that ends the shell leaves it there
_RUN = os.urandom(12).hex()  # a job is told by its id from those of all other managers
_numbers = itertools.count()


class LocalJob(LocalSchemaExecutionJob):  # type: ignore[misc]  # the core is untyped
    """A job iteration as a group of processes on this machine.

    Mends C13 (cancel reaches the direct child only, and is lost before there is one), C14 (variables are pasted into
    JSON text), C22 (arguments unquoted in a shell's text) and C23 (walltime and model ignored), and keeps standard
    input from the jobs. Can go when the core starts jobs in groups of their own and ends those.
    """

    _walltime_timer: Optional[asyncio.TimerHandle] = None
    _over_walltime = False
    _is_shell = False  # what runs it tells of a signal by an exit code of its own
    _child: Optional[Child] = None

    def __init__(self, executor: Any, envs: Any, allocation: Any, job_iteration: Any, schema: Any) -> None:
        # not those of the core: they copy the whole environment for each job
        self._executor = executor
        self.settings: Settings = executor._manager.settings
        self._envs = envs
        self._schema = schema
        self.allocation = allocation
        self.job_iteration = job_iteration
        self.kind = kind_of(job_iteration.resources)
        self.jid = f"{_RUN}{next(_numbers):08x}"
        self.canceled = False
        self.exit_code: Optional[int] = None
        self.error_message: Optional[str] = None
        self.env_opts = schema.get_env_opts()
        self.env = Changes()
        self.wd_path = "."
        self._start_time: Any = None
        parts = allocation.nodes
        self.nnodes = len(parts)
        self.ncores = sum(part.ncores for part in parts)
        self.nlist = ",".join([part.node.name for part in parts])
        self.tasks_per_node = ",".join([str(part.ncores) for part in parts])
        self.job_execution = self._replace_job_variables(job_iteration.job.execution)
        self.process_pid = -1
        self.process_name = "bash" if self.job_execution.script else os.path.basename(self.job_execution.exec)

    @override
    def _replace_job_variables(self, job_execution: JobExecution) -> JobExecution:
        variables = {
            "root_wd": self._executor.base_wd,
            "ncores": str(self.ncores),
            "nnodes": str(self.nnodes),
            "nlist": self.nlist,
        }
        if self.job_iteration.iteration is not None:
            variables["it"] = str(self.job_iteration.iteration)
            variables["itval"] = self.job_iteration.iteration_value
        return JobExecution(**replaced(job_execution.to_dict(), variables))

    def start(self) -> None:
        """Start it; its end is told to the core's executor."""
        try:
            self.preprocess()
            self.pre_start()
            self._start()
        except CannotStart as error:
            self._not_started(error)
        except OSError as error:  # of a file that we make for it, as on a full disk: another time it may start
            _logger.exception("job %s was not started", self.job_iteration.name)
            self._not_started(CannotStart(f"cannot start: {error}", blames=NODE))
        except Exception as error:
            _logger.exception("job %s was not started", self.job_iteration.name)
            self.postprocess(NOT_EXECUTABLE, f"cannot start: {error}")

    @override
    def postprocess(self, exit_code: int, error_message: Optional[str] = None) -> None:
        self._log(f"{end_text(exit_code)} {error_message or ''}")
        super().postprocess(exit_code, error_message)

    @override
    async def cancel(self) -> None:
        self.canceled = True
        self._end()

    def _end(self) -> None:
        if self._child is not None:
            self.settings.children.end(self._child, self.settings.grace)

    def _start(self) -> None:
        self.settings.children.start(*self._order(), self.kind)
        self._limit_walltime()  # its start may hang

    def make_ready(self) -> None:
        """Have it started when a process of its kind ends, which is when `begin` has to be called."""
        self.preprocess()
        self.settings.children.make_ready(*self._order(), self.kind)

    def begin(self, *, now: bool) -> None:
        """Take note that it starts in the allocation that it has; `now` it has to be started."""
        self.pre_start()
        if now and self._child is not None:
            self.settings.children.start_ready(self._child)
        self._limit_walltime()

    def _order(self) -> Tuple[Order, Child]:
        execution = self.job_execution
        command = [execution.exec, *execution.args]
        if self.settings.run_times is not None:
            command = self.settings.run_times.wrapped(command, self.env, self.job_iteration.name)
        self._child = Child(self.jid, self._ended, self._has_started, self._not_started, self._forget_walltime)
        return Order(command, self.wd_path, self.env, self._files(), makes_cwd=True), self._child

    @override
    def preprocess(self) -> None:
        # not the core's, which makes the directory here, where a hung file system would hold up all jobs
        self.setup_sandbox()
        self._schema.preprocess(self)
        super(LocalSchemaExecutionJob, self).preprocess()

    @override
    def setup_sandbox(self) -> None:
        wd, base = self.job_execution.wd, self._executor.base_wd
        self.wd_path = base if wd is None else os.path.join(base, wd)  # it is made when the job starts

    def _has_started(self) -> None:
        assert self._child is not None
        self.process_pid = self._child.pid
        if self._walltime_timer is None:
            self._limit_walltime()
        self._log(f"is process {self.process_pid} on {self.nlist}")

    def _not_started(self, error: CannotStart) -> None:
        if error.blames:  # another time it may start
            job, iteration = self.job_iteration.job, self.job_iteration.iteration
            self._executor._manager.interruptions.add(job, iteration)
        self._ended(error.exit_code, str(error))

    def _forget_walltime(self) -> None:
        """Count no walltime until it starts, which is when there is room again for a process."""
        if self._walltime_timer is not None:
            self._walltime_timer.cancel()
            self._walltime_timer = None
        self._log("waits: there is no room for another process just now")

    def _files(self) -> Dict[str, str]:
        """Return the paths of the job's streams, and note them for whoever asks why it failed."""
        named = {name: getattr(self.job_execution, name) for name in STREAMS}
        files = {name: os.path.join(self.wd_path, path) for name, path in named.items() if path}
        if _is_one_file(files.get("stdout"), files.get("stderr")):
            files["stderr"] = files["stdout"]  # it is opened once, for both
        self._note(files)
        return files

    def _limit_walltime(self) -> None:
        walltime = self.job_iteration.job.resources.wt
        if walltime:
            loop = asyncio.get_running_loop()
            self._walltime_timer = loop.call_later(walltime.total_seconds(), self._end_over_walltime)

    def _log(self, what: str) -> None:
        if self.settings.note_in_log is not None:
            self.settings.note_in_log(f"job {self.job_iteration.name} {what}")

    def _note(self, facts: Dict[str, str]) -> None:
        self.job_iteration.job.append_runtime(facts, iteration=self.job_iteration.iteration)

    def _end_over_walltime(self) -> None:
        self._over_walltime = True
        self._end()

    def _ended(self, exit_code: int, message: Optional[str] = None) -> None:
        if self._walltime_timer is not None:
            self._walltime_timer.cancel()
        child, self._child = self._child, None  # it holds this one
        by = signal_named_by_shell(exit_code) if self._is_shell else None
        if by is not None:
            self._note({"signal": by})
        if self.settings.run_times is not None and child is not None and child.started and child.ended:
            self.settings.run_times.ended(self.job_iteration.name, child.started, child.ended)
        if self._over_walltime and not self.canceled:
            walltime = self.job_iteration.job.resources.wt
            self.postprocess(exit_code or -15, f"walltime of {walltime} is over; the job was ended")
        else:
            self.postprocess(exit_code, message)

    def _leave(self, exit_code: int) -> None:
        """End an iteration that never started."""
        self.exit_code = exit_code
        self._executor.job_iteration_finished(self)

    @override
    def _resolve_mods_venv(self) -> None:
        execution = self.job_execution
        command = self._modelled([execution.exec, *execution.args] if execution.exec else [])
        preparation = [f"module load {shlex.quote(name)} || exit" for name in execution.modules or []]
        if execution.venv:
            preparation.append(f"source {shlex.quote(os.path.join(execution.venv, 'bin', 'activate'))} || exit")
        self._is_shell = os.path.basename((command or _SHELLS)[0]) in _SHELLS or self._is_for_login
        if execution.script and command:
            command += self._shell_for(execution.script, of_rank=True)
        if execution.script and not command:
            command = self._shell_for("\n".join([*preparation, execution.script]))
        elif preparation or self._is_for_login:
            command = self._shell_running("\n".join([*preparation, f"exec {shlex.join(command)}"]))
        execution.exec, execution.args = command[0], command[1:]

    @property
    def _is_for_login(self) -> bool:
        """Whether a login shell runs the job: the profile is slow, and sets another PATH, but defines `module`."""
        execution = self.job_execution
        return bool((execution.model_opts or {}).get("login", execution.modules))

    def _shell_running(self, text: str, *, of_rank: bool = False) -> List[str]:
        # what is loaded in front of the command that starts the ranks would be lost if each rank read the profile
        if not self._is_for_login or (of_rank and "login" not in self.job_execution.model_opts):
            return ["bash", "-c", text]
        return ["bash", "-c", f"{{ {_LOGIN_SHELL}}} 9<<< unread", "bash", text]

    def _shell_for(self, script: str, *, of_rank: bool = False) -> List[str]:
        """Return the command of a shell that runs `script`, which it finds in its environment.

        Every user can see the command line of a process, and nobody else its environment; what a script says, and the
        variables that its job is given, which are set by its first lines, may be secrets.
        """
        pieces = in_pieces(script)  # no variable can hold a long one
        names = [_SCRIPT, *(f"{_SCRIPT}_{number}" for number in range(1, len(pieces)))]
        self.env.update(zip(names, pieces))
        whole = "".join(f"${{{name}}}" for name in names)
        return self._shell_running(f'export -n {" ".join(names)}; eval "{whole}"', of_rank=of_rank)

    def _modelled(self, command: List[str]) -> List[str]:
        """Return what starts `command` in the job's model; a job on one core needs no starter in any model."""
        execution, model = self.job_execution, self.job_execution.model
        if model == "srunmpi":
            raise CannotStart("the model 'srunmpi' needs a Slurm allocation; use 'openmpi' here")
        if model not in MPI_MODELS or self.ncores == 1:
            return command
        count = ranks_of(execution)
        ranks = models.ranks_in(self.allocation.nodes, count, on_each_node=self.job_iteration.job.resources.has_nodes)
        own = execution.model_opts.get("mpirun_args", [])
        layout = [] if models.lays_out_ranks(own) else ["-n", str(len(ranks))]
        if count:
            if "OMP_NUM_THREADS" not in (execution.env or {}):
                self.env["OMP_NUM_THREADS"] = str(len(ranks[0].cores))
            if model == "openmpi" and layout and not models.binds_ranks(own):
                layout += ["--bind-to", "none"]  # mpirun would bind each rank to one core, whatever its threads
        return [execution.model_opts.get("mpirun", "mpirun"), *layout, *own, *command]


def _is_one_file(stdout: Optional[str], stderr: Optional[str]) -> bool:
    """Return whether two paths are written differently and mean the same, by way of links to directories too."""
    if not stdout or not stderr or stdout == stderr or os.path.basename(stdout) != os.path.basename(stderr):
        return False
    return os.path.realpath(stdout) == os.path.realpath(stderr)


class Changes(Dict[str, Optional[str]]):
    """Holds what a job's environment has in place of the manager's; None for a variable that it does not have."""

    @override
    def __contains__(self, name: object) -> bool:
        return self.get(str(name), os.environ.get(str(name))) is not None

    @override
    def __delitem__(self, name: str) -> None:
        self[name] = None
