"""The executor: its life, and the way of a submission through it.

::

    submit(template, *dicts, **parameters)
        templates.read        the template's text and defaults
        rendering.rendered    values in their places -> descriptions
        validation.validated  checked against what the manager has -> typed jobs
        rendering.encoded     as the manager must get them
        Dispatcher.submit     -> the manager -> events -> QCGPJFuture

The executor owns the Connection, that the Dispatcher (a thread, its sockets; see _client/dispatcher.py) and through it
the manager process (see _manager/). Nothing of these holds the executor: one that is dropped without shutdown() is
collected, and its jobs end in peace.
"""

from __future__ import annotations

import os
import weakref
from concurrent.futures import Executor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, Mapping, Optional, Sequence, Type, Union

from qcg.pilotjob.executor_api._client import endings
from qcg.pilotjob.executor_api._client.options import ManagerOptions, checked_options
from qcg.pilotjob.executor_api._client.own_manager import ManagerProcess
from qcg.pilotjob.executor_api._shared.futures import may_wait
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api.errors import ExecutorClosed

if TYPE_CHECKING:
    from typing_extensions import Self

    from qcg.pilotjob.executor_api._client.connection import Connection
    from qcg.pilotjob.executor_api._description.walltimes import Walltime
    from qcg.pilotjob.executor_api._functions.hub import Hub
    from qcg.pilotjob.executor_api.allocation import Allocation, AllocationStatus
    from qcg.pilotjob.executor_api.functions import FunctionPool
    from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture
    from qcg.pilotjob.executor_api.run_record import RunRecord
    from qcg.pilotjob.executor_api.templates.qcgpj_template import TemplateLike

__all__ = ["QCGPJExecutor"]


class QCGPJExecutor(Executor):
    """Runs jobs on the nodes of an allocation, or on this machine, through a QCG-PilotJob manager.

    It is a ``concurrent.futures.Executor`` whose `submit` takes a template instead of a function. When the constructor
    returns, the manager takes jobs. `with` leaves when all jobs have ended, however long that takes; when it is left
    by KeyboardInterrupt or SystemExit, the jobs that have not ended are cancelled.

    Args:
        manager_args: further options of the manager's command line.
        wd: the working directory of the manager and, unless they name their own, of the jobs; made when missing. The
            manager's log and its record of ended jobs are in ``<wd>/.qcgpjm-service-<id>``, for the owner only.
        resources: what jobs may use: a number of cores, or nodes with their cores like ``n1:2,n2:4``. By default the
            Slurm allocation when there is one, else the CPUs of this machine that this program may use: its affinity,
            the quota of its cgroup and the share of its PBS, LSF or Grid Engine job count. In an allocation a number
            stands for so many cores of it.
        reserve_core: keep one core for the manager; jobs cannot use it.
        enable_rt_stats: keep the exact start and end of each job's process in ``rtimes_*.log`` in `wd`.
        wrapper_rt_stats: a program that measures the start and end of each process in place of the manager.
        log_level: of the manager: critical, error, warning, info, debug or notset.
        manager: a manager that somebody else has started: a ``Manager`` or ``LocalManager`` of the core, or the
            directory where another executor of the same user, on this host, has its manager. It is used instead of a
            manager process of the executor's own, and is not stopped; no other argument may be given then.
        start_timeout: seconds within which the manager has to be ready, and the agents on an allocation's nodes.
        resume: the directory of an interrupted run, ``<wd>/.qcgpjm-service-<id>``, or its `wd` for the latest one in
            it. What has ended there is not run again, all else that was submitted is; `attach` gives the futures. The
            run goes on in the same directory. `resources` and the other options are not taken over.
        requeue_on_node_failure: how many times a job whose node has gone is started again on another one, from its
            beginning, before it is FAILED.
        threads_per_core: how many jobs on one core may share a physical core that has several hardware threads. By
            default each job has the whole core; 2 lets each hardware thread of two count as a core. In an allocation.
        allocation: an `Allocation` that is asked for from the scheduler; the manager is started in it, and `resources`
            is not given then. The constructor returns when the scheduler has taken the request. What is submitted is
            kept until the allocation starts; `allocations` tells where it stands.
        stop_on: signals that mean that the time is nearly over, like the SIGUSR1 of ``sbatch --signal=B:USR1@60``. On
            one of them nothing more is started: what runs goes on, all else is cancelled as by
            ``shutdown(wait=False, cancel_futures=True)``. In the main thread only.
        progress: show the jobs by a bar of tqdm's until the executor has ended: how many have ended, failed, run and
            wait, on how many cores; before an allocation runs, where that stands. An array counts as one job, and so
            does a worker of `functions`. It is on standard error, and only when that is a terminal, or in the notebook.
            It is renewed twice a second.

    Raises:
        InvalidOption: (a ``ValueError``) an argument has no meaning.
        ManagerStartError: (a ``RuntimeError``) the manager did not start; the message has the end of its log. Or the
            run to resume still has a living manager, or a job that does not fit in here.
        ManagerDied: (a ``BrokenExecutor``) the other executor's manager has ended.
        AllocationFailed: (a ``RuntimeError``) the scheduler has refused the allocation.
        ImportError: `allocation` is given, and psij-python is not installed; or `progress`, and tqdm is not.
    """

    def __init__(
        self,
        *manager_args: str,
        wd: Union[str, "os.PathLike[str]"] = ".",
        resources: Union[int, str, None] = None,
        reserve_core: bool = False,
        enable_rt_stats: bool = False,
        wrapper_rt_stats: Union[str, "os.PathLike[str]", None] = None,
        log_level: str = "info",
        manager: Any = None,
        start_timeout: float = 120.0,
        resume: Union[str, "os.PathLike[str]", None] = None,
        requeue_on_node_failure: int = 0,
        threads_per_core: int = 1,
        stop_on: Union[int, Sequence[int], None] = None,
        allocation: Optional[Allocation] = None,
        progress: bool = False,
    ) -> None:
        self.finished = False
        options = checked_options(
            manager_args,
            manager=manager,
            has_allocation=allocation is not None,
            restarts=requeue_on_node_failure,
            threads_per_core=threads_per_core,
            stop_on=stop_on,
            wd=wd,
            resources=resources,
            reserve_core=reserve_core,
            enable_rt_stats=enable_rt_stats,
            wrapper_rt_stats=wrapper_rt_stats,
            log_level=log_level,
            resume=resume,
        )
        endings.refuse_start()  # before a process is started
        bar_class = _bar_class() if progress else None
        self._connection = _connection(options, manager, allocation, start_timeout)
        self._pools: weakref.WeakSet[Hub] = weakref.WeakSet()
        self._finalizer = weakref.finalize(self, self._connection.abandon)
        self._finalizer.atexit = False  # the dispatchers' own hook waits for them
        if options.signals:
            from qcg.pilotjob.executor_api._client.connection import on_signals

            on_signals(options.signals, self._connection)
        if bar_class is not None:
            self._connection.show(bar_class)

    def __enter__(self) -> Self:
        return self

    @override
    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_val: Optional[BaseException],
        exc_tb: Optional[TracebackType],
    ) -> None:
        try:
            if exc_type is None or not issubclass(exc_type, (KeyboardInterrupt, SystemExit)):
                self.shutdown()
            else:
                self._cancel_all()
        except KeyboardInterrupt:  # one that came before shutdown(), or the first of two, could be taken care of
            self._cancel_all()
            raise

    @override
    def submit(  # type: ignore[override]  # a template where other executors take a function
        self, fn: TemplateLike, /, *args: Optional[Mapping[str, Any]], **kwargs: Any
    ) -> QCGPJFuture:
        """Submit the jobs of a template and return their future, at once; callable from every thread and callback.

        Args:
            fn: the template: a callable that returns the text of a description or ``(text, defaults)``, or a class or
                an object whose ``template`` does.
            args: dictionaries of parameters; later ones beat earlier ones, None is skipped.
            kwargs: parameters; they beat those in `args`, which beat the defaults.

        Parameters that the template has no placeholder for have no effect. Of those in `kwargs` a ``UserWarning``
        tells; those in `args` may be rows of a table, of which a template takes what it needs.

        Raises:
            MissingParameter: (a ``KeyError``) a placeholder has no value.
            TemplateError: (a ``ValueError``) the template cannot be read, or a value not be written into it.
            InvalidJob: (a ``ValueError``) the description cannot be run, or its name was used before.
            ExecutorClosed: (a ``RuntimeError``) the executor is shut down.
            ManagerDied: (a ``BrokenExecutor``) the manager has gone.

        What only the manager can know, like a dependency on a job that it does not have, is a `JobRefused` on the
        future.
        """
        return self._connection.submit(fn, args, kwargs)

    @override
    def map(  # type: ignore[override]  # of dictionaries, as submit
        self,
        fn: TemplateLike,
        *iterables: Iterable[Optional[Mapping[str, Any]]],
        timeout: Optional[float] = None,
        chunksize: int = 1,
        buffersize: Optional[int] = None,
    ) -> Iterator[Dict[str, str]]:
        """Submit the template once for each dictionary of the iterables; yield the results in order.

        Args:
            fn: the template, as `submit` takes it.
            iterables: of dictionaries of parameters. Each submission takes one of each; later ones beat earlier ones.
                They are read at once, unless there is a `buffersize`.
            timeout: seconds from this call until a result has to be there. At its end, and whenever the iterator is
                left before its end, the jobs whose results were not yielded are cancelled.
            chunksize: ignored; for code that gives it to other executors.
            buffersize: how many submissions there may be whose results were not yielded yet: the iterables are read as
                the results are, and may have no end. The iterator keeps the executor then.

        Raises:
            ValueError: `buffersize` is less than 1; or as `submit`.
            TypeError: `buffersize` is no integer.
        """
        if buffersize is None:
            return super().map(fn, *iterables, timeout=timeout, chunksize=chunksize)  # type: ignore[arg-type]
        from qcg.pilotjob.executor_api._shared.futures import buffered_map

        submissions: Any = fn
        return buffered_map(self, submissions, iterables, timeout=timeout, buffersize=buffersize)

    def attach(self, *names: str) -> QCGPJFuture:
        """Return a future of jobs that the manager has already, by name: those of a run that is resumed, or another's.

        It is resolved at once when the jobs have ended. Leaving the executor waits for it as for every future; when it
        is left by KeyboardInterrupt or SystemExit, jobs of another executor's manager go on.

        Raises:
            JobUnknown: (a ``LookupError``) the manager has no job of that name; in a done-callback, which must not
                wait, the future gets it.
            ExecutorClosed: (a ``RuntimeError``) the executor is shut down.
            ManagerDied: (a ``BrokenExecutor``) the manager has gone.
        """
        return self._connection.attach(names)

    def functions(
        self,
        max_workers: Optional[int] = None,
        *,
        cores: int = 1,
        nodes: Optional[int] = None,
        ranks: Optional[int] = None,
        gpus: Optional[int] = None,
        model: Optional[str] = None,
        model_opts: Optional[Mapping[str, Any]] = None,
        walltime: Optional[Walltime] = None,
        env: Optional[Mapping[str, str]] = None,
        wd: Optional[str] = None,
        modules: Sequence[str] = (),
        venv: Optional[str] = None,
        python: Optional[str] = None,
        fresh: Optional[bool] = None,
        all_ranks: bool = False,
        idle_seconds: float = 5.0,
        retries: int = 0,
    ) -> FunctionPool:
        """Return a pool that calls Python functions: an executor for code that expects a plain one.

        Its workers are jobs of this executor. They start when there are calls for them, take call after call, and end
        when the pool is shut down, when this executor is, or when they have had nothing to do for a while. A pool
        costs nothing until it is used: take one for each kind of call.

        Args:
            max_workers: how many calls there are at a time, at the most; by default as many as there are cores and
                GPUs for.
            cores: what each call has, on each node when `nodes` are given; on one node otherwise, except with MPI.
            nodes: on how many nodes a call runs.
            ranks: of MPI, which share the cores; on each node when `nodes` are given. By default there is one a core.
            gpus: what each call has of GPUs, on each node when `nodes` are given; it sees no others. In a Slurm
                allocation.
            model: of MPI, like ``openmpi``: the function runs on every rank.
            model_opts: of the model.
            walltime: after which a call is ended: seconds, a ``timedelta``, ``1h30m``, ``01:30:00``.
            env: variables of the workers.
            wd: their working directory.
            modules: that are loaded for them.
            venv: the virtual environment in which they run; it needs this package with cloudpickle, and the same
                version of Python.
            python: their interpreter, with the same needs; by default that of this program, with its ``sys.path``.
            fresh: start a process for each call instead of keeping workers; by default for MPI only.
            all_ranks: return a list with the values of all ranks, not that of the first one.
            idle_seconds: after which a worker without a call gives its cores back; at once when a job waits for some.
            retries: how often a call is made again whose worker has died.

        Raises:
            InvalidOption: (a ``ValueError``) an option has no meaning.
            InvalidJob: (a ``ValueError``) such a worker could never run here.
            ImportError: cloudpickle is not installed; it comes with the extra ``functions``.
            ExecutorClosed: (a ``RuntimeError``) this executor is shut down.
        """
        from qcg.pilotjob.executor_api.functions import make_pool

        if self.finished:
            raise ExecutorClosed("functions() after shutdown of the executor")
        pool = make_pool(
            self,
            self._connection,
            max_workers=max_workers,
            cores=cores,
            nodes=nodes,
            ranks=ranks,
            gpus=gpus,
            model=model,
            model_opts=model_opts,
            walltime=walltime,
            env=env,
            wd=wd,
            modules=modules,
            venv=venv,
            python=python,
            fresh=fresh,
            all_ranks=all_ranks,
            idle_seconds=idle_seconds,
            retries=retries,
        )
        self._pools.add(pool._hub)
        return pool

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs and, when those submitted have ended, stop the manager. Twice is harmless.

        Args:
            wait: return when the manager has ended; otherwise at once, and all goes on in the background. In a
                done-callback, which would hold up the end, it returns at once.
            cancel_futures: cancel the jobs, and the iterations of arrays, that have not started; they run when the run
                is resumed. With `manager` the jobs that this executor has submitted: those of others go on, and their
                futures here that have not started get an `ExecutorClosed`.

        A KeyboardInterrupt while it waits cancels all jobs that have not ended.
        """
        try:
            self.finished = True
            pools = [pool for pool in self._pools if not pool.has_ended]
            for pool in pools:
                pool.close(cancel_pending=cancel_futures)
            self._connection.leave_after(pools, cancel_queued=cancel_futures)
            if wait and may_wait():
                for pool in pools:
                    pool.join()
                self._connection.join()
        except KeyboardInterrupt:
            self._cancel_all()
            raise

    @property
    def qcgpj_manager(self) -> Any:
        """A ``Manager`` of the core, connected to the executor's manager; the given one when there is one.

        For requests of your own, like ``resources()``. Threads may share it.
        """
        return self._connection.manager()

    def record(self) -> RunRecord:
        """Return what has become of the jobs until now, with a row for each; also after shutdown.

        What has ended is there when its future is done. Of what has not, the manager tells whether it waits or runs;
        it does not in a done-callback, when it has ended or is on another machine, and the rows are ``UNFINISHED``
        then. What no manager has yet, as its allocation waits in a queue, has no row. A run that was resumed has the
        rows of its earlier parts too.

        Raises:
            InvalidOption: (a ``ValueError``) the manager was made to keep another record than ``jobs.report`` in JSON.
            OSError: the record cannot be read.
        """
        from qcg.pilotjob.executor_api._record.live import runs_of
        from qcg.pilotjob.executor_api.run_record import RunRecord

        return RunRecord(runs_of(self._connection))

    @property
    def allocations(self) -> Sequence[AllocationStatus]:
        """Where the allocations stand that were asked for by `allocation`."""
        return self._connection.statuses

    def detach(self) -> str:
        """Take no more jobs, leave the allocation and its manager to themselves, and return the run's directory.

        ``QCGPJExecutor(manager=DIRECTORY)`` follows its jobs from another program, at any time later, on any machine
        that can reach the nodes. What was submitted runs as it would have; the manager gives the allocation back when
        nothing is left to do. The futures of unfinished jobs get an `ExecutorClosed`. Without ``detach()``, nothing
        outlives the program.

        Raises:
            InvalidOption: (a ``ValueError``) the executor has no `allocation`.
            ExecutorClosed: (a ``RuntimeError``) the executor is shut down.
            ManagerDied: (a ``BrokenExecutor``) the allocation has ended.
        """
        directory = self._connection.detach()
        self.finished = True
        return directory

    def _cancel_all(self) -> None:
        self.finished = True
        pools = list(self._pools)
        for pool in pools:
            pool.abort()
        self._connection.cancel_all()
        self._connection.join()
        if self._connection.has_ended:  # else this is a callback, where nobody may wait
            for pool in pools:
                pool.join()


def _connection(
    options: ManagerOptions, manager: Any, allocation: Optional[Allocation], start_timeout: float
) -> Connection:
    if allocation is not None:
        from qcg.pilotjob.executor_api._allocation.own_allocation import connect_own_allocation, start_guards

        guards = start_guards(allocation, options.arguments, options.orders)
        if len(guards) == 1:
            return connect_own_allocation(guards[0])
        from qcg.pilotjob.executor_api._allocation.several import connect_several

        return connect_several(guards, rerun=allocation.rerun)
    if manager is None:
        process = ManagerProcess(options.arguments, start_timeout, options.orders)
        # imported while the manager process starts: both are ready sooner
        from qcg.pilotjob.executor_api._client.kinds import connect_own_process

        return connect_own_process(process)
    from qcg.pilotjob.executor_api._client.kinds import connect_bare_core, connect_others_manager

    if isinstance(manager, (str, os.PathLike)):
        return connect_others_manager(manager)
    return connect_bare_core(manager)


def _bar_class() -> Optional[Type[Any]]:
    from qcg.pilotjob.executor_api._client.progress import bar_class

    return bar_class()
