"""The scheduler, by psij: one allocation at a time is asked for, looked at and cancelled."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, Collection, Dict, List, Mapping, Optional, Tuple

import psij
from psij import SubmitException
from psij.executors.batch.slurm import SlurmExecutorConfig, SlurmJobExecutor
from psij.resource_spec import ResourceSpecV1

from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.texts import code_text, end_text, signal_named_by_shell

__all__ = ["Scheduler", "SubmitException"]

_NEVER = sys.maxsize
_QUEUE_SECONDS = 10


class _Slurm(SlurmJobExecutor):
    """psij's, that goes on where that one takes a living job for a failed one.

    psij 0.9.11 knows some of Slurm's reasons only, and none with a blank ("ReqNodeNotAvail, UnavailableNodes:n2"); on
    any other, of whichever job of the user's, it reports all of its jobs as failed. Can go when it does not.
    """

    _NAME_ = "slurm"  # as psij names those that it makes itself
    options: Mapping[str, str] = {}

    @override
    def parse_status_output(self, exit_code: int, out: str) -> Dict[str, psij.JobStatus]:
        if exit_code != 0:
            raise RuntimeError(f"squeue {end_text(exit_code)}: {out.strip()}")
        found = {}
        for line in out.splitlines()[1:]:
            number, state, *reason = line.split(None, 2)
            found[number] = psij.JobStatus(
                self._STATE_MAP.get(state, psij.JobState.ACTIVE), message=" ".join([state, *reason]).strip()
            )
        return found

    @override
    def generate_submit_script(self, job: psij.Job, context: Dict[str, object], submit_file: IO[str]) -> None:
        """Write psij's script with two changes.

        The script's shells outlive SIGTERM: Slurm kills what is left of a script whose shell has ended. Without that
        the manager, which gets SIGTERM too, would have no time to end jobs in peace. And options are written here: psij
        gives a value to each, and puts some values into quotes of its own.
        """
        script = io.StringIO()
        super().generate_submit_script(job, context, script)
        head, directive, rest = script.getvalue().rpartition("\n#SBATCH")
        options, _, commands = rest.partition("\n")
        ours = (f'--{name}="{value}"' if value else f"--{name}" for name, value in self.options.items())
        own = "".join(f"\n#SBATCH {option}" for option in ours)
        submit_file.write(f"{head}{own}{directive}{options}\ntrap '' TERM\n{commands}")

    @override
    def get_status_command(self, native_ids: Collection[str]) -> List[str]:
        return ["squeue", "-O", "JobArrayID:20,StateCompact:10,Reason:200", "-t", "all", "--me"]


class Scheduler:
    """Asks a scheduler for allocations. Belongs to the guard's one thread."""

    def __init__(self, name: str, directory: Path, poll: float) -> None:
        """`directory` is for psij's files; `poll` is in seconds."""
        self._name = name
        self._poll = max(1, round(poll))
        self._executor = self._make_executor(directory)
        self.job: Any = None

    def _make_executor(self, directory: Path) -> Any:
        if self._name == "local":
            return psij.JobExecutor.get_instance("local", config=psij.JobExecutorConfig(work_directory=directory))
        if self._name == "slurm":
            # while the controller does not answer, jobs live as before
            return _Slurm(
                config=SlurmExecutorConfig(
                    work_directory=directory,
                    queue_polling_interval=self._poll,
                    initial_queue_polling_delay=1,
                    queue_polling_error_threshold=_NEVER,
                )
            )
        executor: Any = psij.JobExecutor.get_instance(
            self._name, config=psij.JobExecutorConfig(work_directory=directory)
        )
        for option, value in (("queue_polling_interval", self._poll), ("queue_polling_error_threshold", _NEVER)):
            if hasattr(executor.config, option):
                setattr(executor.config, option, value)
        return executor

    def submit(self, command: List[str], wanted: Dict[str, Any], files: Dict[str, Path]) -> str:
        """Ask for an allocation in which `command` is run on the first node; return the scheduler's name for it.

        Raises:
            SubmitException: it is refused.
        """
        cores = wanted["cores_per_node"]
        nodes = wanted["nodes"]
        if self._name == "local":
            nodes = cores = 1  # the manager is told how many cores there are; psij would only write a list of nodes
        options = {"slurm.job-name": "qcgpj", **wanted["options"]}  # psij's own way is without effect there
        if isinstance(self._executor, _Slurm):
            self._executor.options = {name[6:]: value for name, value in options.items() if name.startswith("slurm.")}
            options = {}
        self.job = psij.Job(
            psij.JobSpec(
                name="qcgpj",
                executable=command[0],
                arguments=command[1:],
                directory=files["wd"],
                stdout_path=files["out"],
                stderr_path=files["out"],
                resources=ResourceSpecV1(
                    node_count=nodes, processes_per_node=cores or 1, exclusive_node_use=cores is None
                ),
                attributes=psij.JobAttributes(
                    duration=timedelta(seconds=wanted["seconds"]),
                    queue_name=wanted["queue"],
                    account=wanted["account"],
                    reservation_id=wanted["reservation"],
                    custom_attributes=options,
                ),
                pre_launch=files.get("setup"),
                launcher="single",
            )
        )
        self._executor.submit(self.job)
        return self.name

    @property
    def name(self) -> str:
        """The scheduler's name for the allocation."""
        return str(self.job.native_id)

    @property
    def waits(self) -> bool:
        """Whether the allocation has not begun."""
        return self.job.status.state in (psij.JobState.NEW, psij.JobState.QUEUED)

    def has_ended(self) -> bool:
        """Return whether the allocation is over."""
        return bool(self.job.status.final)

    @property
    def verdict(self) -> str:
        """What the scheduler says about the end."""
        status = self.job.status
        said = (status.message or "").strip()
        by = signal_named_by_shell(status.exit_code or 0)  # psij's script, which is a shell's, has noted the code
        code = f", {code_text(status.exit_code, by)}" if status.exit_code else ""
        return f"{status.state.name}{f' ({said})' if said else ''}{code}"

    def look(self) -> None:
        """Ask Slurm at once how the allocation has ended, if it has; psij asks less often."""
        if not isinstance(self._executor, _Slurm):
            return
        command = self._executor.get_status_command([self.name])
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            asked = subprocess.run(command, capture_output=True, text=True, timeout=_QUEUE_SECONDS, check=False)
            status = None
            if asked.returncode == 0:
                status = self._executor.parse_status_output(0, asked.stdout).get(self.name)
            if status is not None and status.final:
                self._executor._set_job_status(self.job, status)

    def place_in_queue(self, queue: Optional[str]) -> Tuple[Optional[int], Optional[datetime], str]:
        """Return which of those that wait it is, when it is expected to start, and why it waits, as far as is told."""
        if self._name != "slurm" or shutil.which("squeue") is None:
            return None, None, ""  # psij does not ask for these, and other schedulers do not tell
        command = ["squeue", "-h", "-t", "PD", "-S", "-p,i", "-o", "%A %S %r", *(["-p", queue] if queue else [])]
        with contextlib.suppress(subprocess.TimeoutExpired):
            listed = subprocess.run(command, capture_output=True, text=True, timeout=_QUEUE_SECONDS, check=False)
            lines = [line.split(None, 2) for line in listed.stdout.splitlines()]
            for place, line in enumerate(lines, 1):
                if line and line[0] == self.name:
                    reason = line[2].strip()
                    return place, _moment(line[1]), "" if reason == "None" else reason
        return None, None, ""

    def cancel(self) -> None:
        """Give the allocation back, or take back that it was asked for."""
        if self.job is not None and not self.has_ended():
            self.job.cancel()


def _moment(text: str) -> Optional[datetime]:
    with contextlib.suppress(ValueError):  # "N/A", where nothing is expected
        return datetime.fromisoformat(text)
    return None
