"""Python functions as jobs: a plain ``concurrent.futures.Executor`` over the cores of a `QCGPJExecutor`."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import weakref
from concurrent.futures import Executor
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

from qcg.pilotjob.executor_api._description.validation import validated
from qcg.pilotjob.executor_api._description.walltimes import Walltime, seconds_in
from qcg.pilotjob.executor_api._functions import messages
from qcg.pilotjob.executor_api._functions.calls import Call, Needs
from qcg.pilotjob.executor_api._functions.future import FunctionFuture
from qcg.pilotjob.executor_api._functions.hub import Hub
from qcg.pilotjob.executor_api._functions.modules import SearchPath, path_here
from qcg.pilotjob.executor_api._functions.rendezvous import Rendezvous
from qcg.pilotjob.executor_api._shared import python_process
from qcg.pilotjob.executor_api._shared.futures import buffered_map
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.rules import MPI_MODELS
from qcg.pilotjob.executor_api._shared.texts import shown
from qcg.pilotjob.executor_api.errors import InvalidJob, InvalidOption

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._client.connection import Connection

__all__ = ["FunctionFuture", "FunctionPool", "checked_count", "checked_seconds"]

_TEMPLATE = '{"name": "${name}", "execution": ${execution}, "resources": ${resources}, "attributes": ${attributes}}'
_hubs: "weakref.WeakSet[Hub]" = weakref.WeakSet()


class FunctionPool(Executor):
    """Calls functions on the cores of a `QCGPJExecutor`; made by its method `functions`, which tells of the options.

    It means what Python's documentation says of ``ProcessPoolExecutor``, with these differences: functions, arguments
    and values are pickled by cloudpickle, so lambdas, closures and what is defined in ``__main__`` will do; they are
    pickled by `submit`, so what is changed after that does not matter; ``cancel()`` ends calls that run; and a process
    that dies takes its own call with it, not the pool.
    """

    def __init__(self, executor: Executor, hub: Hub, *, shares_memory: bool, shares_path: bool) -> None:
        self._executor = executor  # it lives as long as somebody can submit
        self._hub = hub
        self._shares_memory = shares_memory
        self._path = sys.path.copy() if shares_path else None
        self._later_path: Optional[Tuple[List[str], SearchPath]] = None
        self._max_workers = hub.most  # where dask and others look for it, as the executors of Python have it
        self._finalizer = weakref.finalize(self, hub.close)
        self._finalizer.atexit = False  # the hook below waits for its calls

    @override
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> FunctionFuture:
        """Call ``fn(*args, **kwargs)`` in a worker, as soon as one has time; return the future of its value.

        The future raises what the function raised, with the remote traceback as its cause; `CallFailed` when that
        cannot be pickled, `WorkerDied` (a ``BrokenProcessPool``) when the process ended, `CallTimeout` when the
        walltime was over, `CallUnreadable` when something cannot be unpickled. What cannot be pickled is an exception
        on the future too, as with other executors.

        Raises:
            ExecutorClosed: (a ``RuntimeError``) the pool or its executor is shut down.
            BrokenCall: (a ``BrokenProcessPool``) the pool has failed; that is a fault of its own, not of a call.
            RuntimeError: the pool's thread cannot be started: there are too many, or the interpreter shuts down.
        """
        future = FunctionFuture(self._hub.cancel_running)
        try:
            call: Tuple[Any, ...] = (fn, args, kwargs)
            if self._path is not None and sys.path != self._path:
                call = (self._changed_path(), *call)
            parcel = messages.packed(call, shared=self._shares_memory)
        except BaseException as error:  # it may be anything: the arguments' classes decide
            if isinstance(error, KeyboardInterrupt):
                raise
            future.set_running_or_notify_cancel()
            future.set_exception(error)
            return future
        self._hub.make(Call(parcel, future), self._executor)
        return future

    def _changed_path(self) -> SearchPath:
        """Return what has to be unpickled before a call, as ``sys.path`` has changed since the pool was made."""
        if self._later_path is None or self._later_path[0] != sys.path:
            self._later_path = sys.path.copy(), SearchPath(path_here())
        return self._later_path[1]

    @override
    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: int = 1,
        buffersize: Optional[int] = None,
    ) -> Iterator[Any]:
        """Call ``fn`` with the items of the iterables, side by side; yield the values in order.

        Args:
            fn: the function.
            iterables: of its arguments; they are read at once, unless there is a `buffersize`.
            timeout: seconds from this call until a value has to be there.
            chunksize: how many calls go to a worker together: more of them take less time when each is short.
            buffersize: how many calls, or groups of `chunksize` calls, may be submitted whose values were not yielded
                yet: the iterables are read as the values are, and may have no end. The iterator keeps the pool then.

        Raises:
            ValueError: `chunksize` or `buffersize` is less than 1.
            TypeError: `buffersize` is no integer.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return self._map(fn, iterables, timeout, buffersize)
        chunks = self._map(partial(_call_all, fn), [_chunks(iterables, chunksize)], timeout, buffersize)
        return itertools.chain.from_iterable(chunks)

    def _map(
        self,
        fn: Callable[..., Any],
        iterables: Sequence[Iterable[Any]],
        timeout: Optional[float],
        buffersize: Optional[int],
    ) -> Iterator[Any]:
        if buffersize is None:
            return super().map(fn, *iterables, timeout=timeout)
        return buffered_map(self, fn, iterables, timeout=timeout, buffersize=buffersize)

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; when those submitted have been made, the workers end. Twice is harmless.

        Args:
            wait: return when that has happened; in a callback, which would hold it up, return at once.
            cancel_futures: cancel the calls that have not been sent to a worker.
        """
        self._hub.close(cancel_pending=cancel_futures)
        if wait:
            self._hub.join()


def make_pool(
    executor: Executor,
    connection: Connection,
    *,
    max_workers: Optional[int],
    cores: int,
    nodes: Optional[int],
    ranks: Optional[int],
    gpus: Optional[int],
    model: Optional[str],
    model_opts: Optional[Mapping[str, Any]],
    walltime: Optional[Walltime],
    env: Optional[Mapping[str, str]],
    wd: Optional[str],
    modules: Sequence[str],
    venv: Optional[str],
    python: Optional[str],
    fresh: Optional[bool],
    all_ranks: bool,
    idle_seconds: float,
    retries: int,
) -> FunctionPool:
    """Return a pool for ``QCGPJExecutor.functions``, and see to it that it ends with the executor.

    Raises:
        InvalidOption: an option has no meaning.
        InvalidJob: no worker could ever run.
        ImportError: cloudpickle is not installed.
    """
    try:
        messages.use_cloudpickle()
    except ImportError as error:
        raise ImportError(
            "functions() needs cloudpickle; pip install 'qcg-pilotjob-executor-api[functions]'", name="cloudpickle"
        ) from error
    link = connection.dispatcher.link
    given = {"model": model, "model_opts": model_opts, "env": env, "wd": wd, "modules": modules, "venv": venv}
    execution = {key: value for key, value in given.items() if value}
    size: Dict[str, Any] = {"numCores": checked_count("cores", cores, 1)}
    if nodes is not None:
        size["numNodes"] = checked_count("nodes", nodes, 1)
    if ranks is not None:
        size["ranks"] = checked_count("ranks", ranks, 1)
    if gpus is not None:
        size["gpus"] = gpus
    checked = {"name": "functions", "execution": {**execution, "exec": python or "python"}, "resources": size}
    validated(checked, link.capacity)
    is_mpi = (model or "").lower() in MPI_MODELS
    processes = (ranks or cores) * (nodes or 1) if is_mpi else 1
    most = link.capacity.at_a_time(cores, nodes, {"gpu": gpus} if gpus else {}, on_one_node=not is_mpi)
    if max_workers is not None:
        most = min(most, checked_count("max_workers", max_workers, 1))
    needs = Needs(
        job={"execution": execution, "resources": size},
        python=python or ("python" if venv else python_process.interpreter()),
        most=most,
        ranks=processes,
        fresh=processes > 1 if fresh is None else fresh,
        idle_seconds=checked_seconds("idle_seconds", idle_seconds),
        retries=checked_count("retries", retries, 0),
        seconds=None if walltime is None else _seconds_of(walltime),
        all_ranks=all_ranks,
    )
    directory = None if link.report is None else Path(link.report.path).parent
    make_place = partial(
        Rendezvous,
        directory,
        across_nodes=not link.is_local,
        several=processes == 1 and not needs.fresh,
        ranks=processes,
        same_python=python is None and venv is None,
    )
    hub = Hub(partial(_submit, connection), make_place, needs)
    _hubs.add(hub)
    for dispatcher in connection.dispatchers:
        dispatcher.tell_who_waits(hub)
    return FunctionPool(executor, hub, shares_memory=link.is_local, shares_path=python is None and venv is None)


def _seconds_of(walltime: Walltime) -> float:
    try:
        return seconds_in(walltime)
    except ValueError as error:
        raise InvalidJob(f"the pool's walltime {error}") from None


def _submit(connection: Any, description: Dict[str, Any]) -> Any:
    return connection.submit(lambda: _TEMPLATE, [description], {}, for_pool=True)


def _chunks(iterables: Sequence[Iterable[Any]], size: int) -> Iterator[List[Tuple[Any, ...]]]:
    arguments = zip(*iterables)
    chunk = list(itertools.islice(arguments, size))
    while chunk:
        yield chunk
        chunk = list(itertools.islice(arguments, size))


def _call_all(fn: Callable[..., Any], chunk: List[Tuple[Any, ...]]) -> List[Any]:
    return [fn(*arguments) for arguments in chunk]


def _leave_at_exit() -> None:
    """Wait for all calls of pools that were never shut down, as ``concurrent.futures`` does at exit."""
    hubs = list(_hubs)
    for hub in hubs:
        hub.close()
    for hub in hubs:
        hub.join()


def _forget_in_child() -> None:
    for hub in list(_hubs):
        hub.forget_in_child()
    _hubs.clear()


os.register_at_fork(after_in_child=_forget_in_child)

# The hook that concurrent.futures has too. The one for executors is older, so this one is called before it.
threading._register_atexit(_leave_at_exit)  # type: ignore[attr-defined]


def checked_count(name: str, value: Any, least: int) -> int:
    """Return a whole number.

    Raises:
        InvalidOption: it is none, or less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidOption(f"{name} must be a whole number, got {shown(value)}")
    if value < least:
        raise InvalidOption(
            f"{name} must be {'greater than 0' if least == 1 else f'{least} or more'}, got {shown(value)}"
        )
    return int(value)


def checked_seconds(name: str, value: Any) -> float:
    """Return a number of seconds, which may be without end.

    Raises:
        InvalidOption: it is no number, or less than 0.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidOption(f"{name} must be a number of seconds, or math.inf; got {shown(value)}")
    if not float(value) >= 0:  # as for NaN
        raise InvalidOption(f"{name} must be 0 or more, got {shown(value)}")
    return float(value)
