"""The names of the core that this package overrides, replaces or reads, and that the core promises to nobody.

The core is used unmodified, through subclasses and a few globals that are replaced. So another release of the core may
take away what these rely on. `refuse_changed_core` is called before anything is started, and says what is missing.
tests/promises/test_core_names.py finds names that are used and do not stand here.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, FrozenSet, Iterable, Iterator, Mapping, Tuple

from qcg.pilotjob.executor_api.errors import ManagerStartError

__all__ = ["OF_CLIENT", "OF_MANAGER", "TESTED_WITH", "missing_names", "refuse_changed_core", "told"]

TESTED_WITH = "0.14.2"

OF_CLIENT: Mapping[str, Tuple[str, ...]] = {
    "qcg.pilotjob.api.manager.Manager": (
        "._address", "_assure_connected", "_connect", "._connected", "_disconnect", "._publisher_address",
        "_send_and_validate_result", "_setup_logging", "_validate_response", "._zmq_ctx", "._zmq_socket", "finish",
        "remove", "resources", "status", "wait4", "wait4_any_job_finish", "wait4all",
    ),
}  # fmt: skip
"""By class: what the client of ``qcgpj_manager`` overrides and reads."""

OF_MANAGER: Mapping[str, Tuple[str, ...]] = {
    "qcg.pilotjob.environment": ("in_slurm_allocation",),
    "qcg.pilotjob.executionjob": ("datetime",),
    "qcg.pilotjob.executionjob.LocalSchemaExecutionJob": (
        "_prepare_env", "_replace_job_variables", "_resolve_mods_venv", "cancel", "postprocess", "pre_start",
        "preprocess", "setup_sandbox",
    ),
    "qcg.pilotjob.executor": ("LauncherExecutionJob",),
    "qcg.pilotjob.executor.Executor": (
        "._is_node_launcher", "._manager", "._not_finished", ".aux_dir", ".base_wd", "is_all_jobs_finished",
        ".job_envs", ".schema",
    ),
    "qcg.pilotjob.joblist": ("datetime",),
    "qcg.pilotjob.joblist.Job": (
        "_get_subjob", "._iteration", "._subjobs", "._subjobs_failed", "._subjobs_not_finished",
    ),
    "qcg.pilotjob.manager": ("StatusPublisher",),
    "qcg.pilotjob.manager.DirectManager": (
        "._executor", "_fire_job_state_notifies", "._job_states_cbs", "_publish_no_jobs_event",
        "_publish_status_events", "._schedule_event", "_schedule_loop", "._scheduler", "call_scheduler",
        "cancel_iteration", "cancel_job", "change_job_state", "enqueue", "get_handler", "is_all_jobs_finished",
        ".job_list", ".manager_id", ".quit_scheduler", ".resources", ".status_publisher", ".stop_processing",
        ".tracer",
    ),
    "qcg.pilotjob.manager.DirectManagerHandler": (
        "._manager", "_prepare_jobs", "_wait_for_all_jobs", "handle_control_req", "handle_finish_req",
        "handle_jobinfo_req", "handle_jobstatus_req", "handle_removejob_req", "handle_status_req",
        "handle_submit_req", "stop_receiver",
    ),
    "qcg.pilotjob.manager.SchedulingJob": ("._iteration_sub_jobs", "._total_iterations", ".job", "setup_iterations"),
    "qcg.pilotjob.parseres": (
        "__RESOURCES_HANDLING__", "in_slurm_allocation", "parse_local_resources", "parse_slurm_resources",
    ),
    "qcg.pilotjob.publisher.StatusPublisher": ("publish", "setup", "stop"),
    "qcg.pilotjob.receiver.Receiver": (
        "._handler", "._handlers", "_listen", "_started_iface", "_stopped_iface", "set_finish",
    ),
    "qcg.pilotjob.reports.JsonFileReport": ("flush", "report_job_entry"),
    "qcg.pilotjob.resources.CRBind": ("._free", ".ids", "release"),
    "qcg.pilotjob.resources.Node": ("._core_ids", "._crs", "._free_cores", "._total_cores"),
    "qcg.pilotjob.resources.Resources": (
        "._binding", "._max_crs", "._nodes", "._system_allocation", "._total_cores", "._total_crs", "._used_cores",
        "allocate_for_system", "nodes",
    ),
    "qcg.pilotjob.resume.StateTracker": (
        ".finished_file", "job_finished", "new_submited_jobs", ".reqs_file", "resume",
    ),
    "qcg.pilotjob.scheduler.Scheduler": ("._scheduler_alg", "allocate_job", "release_allocation"),
    "qcg.pilotjob.scheduleralgo.SchedulerAlgorithm": ("_allocate_entire_nodes", "allocate_job", ".resources"),
    "qcg.pilotjob.service": ("StateTracker", "ZMQInterface"),
    "qcg.pilotjob.service.QCGPMService": (
        "._args", "._aux_dir", "._conf", "._ifaces", "_job_status_change_notify", "_run_service", "_setup_aux_dir",
        "_setup_direct_manager", "_setup_logging", "_setup_reports", "_setup_signals", "_setup_tracker",
        "_stop_interfaces", "get_interfaces", "start",
    ),
    "qcg.pilotjob.zmqinterface.ZMQInterface": ("close", "receive", "reply", "setup"),
}  # fmt: skip
"""By module or class: what the manager process overrides, replaces and reads."""


def missing_names(table: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Yield the names that the core does not have; all modules of the table are loaded.

    A name with a dot in front is that of an attribute of objects, which is looked for in the code of their class.
    """
    for place, names in table.items():
        module, _, owner = place.rpartition(".")
        holder = sys.modules.get(place) or getattr(sys.modules.get(module), owner, None)
        if holder is None:
            yield place
            continue
        for name in names:
            if not (name[1:] in _used_in(holder) if name.startswith(".") else hasattr(holder, name)):
                yield f"{place}.{name.lstrip('.')}"


def refuse_changed_core(table: Mapping[str, Iterable[str]]) -> None:
    """Refuse a core in which a name of `table` is missing.

    Raises:
        ManagerStartError: one is, or more.
    """
    missing = list(missing_names(table))
    if missing:
        raise ManagerStartError(_words(", ".join(missing)))


def told(error: BaseException) -> str:
    """Return what to say of an error of the start; of an import that the core does not provide, what to install."""
    module = str(error.name) if isinstance(error, ImportError) else ""
    if module.startswith("qcg.pilotjob.") and not module.startswith("qcg.pilotjob.executor_api"):
        return f"{error}\n{_words(module)}"
    return str(error) if isinstance(error, ManagerStartError) else f"{type(error).__name__}: {error}"


def _words(missing: str) -> str:
    return (
        f"the qcg-pilotjob that is installed lacks what this package relies on: {missing}\n"
        f"  next: install the release that it was tested with, pip install 'qcg-pilotjob~={TESTED_WITH}', or a newer "
        "qcg-pilotjob-executor-api"
    )


@cache
def _used_in(holder: Any) -> FrozenSet[str]:
    """Return the names of attributes that the methods of a class and of its bases of the core use."""
    codes = [
        getattr(getattr(value, "fget", value), "__code__", None)
        for base in holder.__mro__
        if base.__module__.startswith("qcg.pilotjob.")
        for value in vars(base).values()
    ]
    return frozenset(name for code in codes if code is not None for name in code.co_names)
