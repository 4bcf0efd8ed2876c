"""Executors of Python functions, each with as many processes as are asked for; an adapter a function."""

from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Callable, Dict


def _process_pool(workers: int) -> Executor:
    return ProcessPoolExecutor(workers)


def _ours(workers: int) -> Executor:
    from qcg.pilotjob.executor_api import QCGPJExecutor

    return QCGPJExecutor(resources=workers).functions()


def _loky(workers: int) -> Executor:
    import loky

    return loky.ProcessPoolExecutor(workers)


def _executorlib(workers: int) -> Executor:
    from executorlib import SingleNodeExecutor

    return SingleNodeExecutor(max_workers=workers, block_allocation=True)


def _dask(workers: int) -> Executor:
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
    return Client(cluster).get_executor(pure=False)


def _parsl(workers: int) -> Executor:
    from parsl.concurrent import ParslPoolExecutor
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    provider = LocalProvider(init_blocks=1, max_blocks=1)
    htex = HighThroughputExecutor(address="127.0.0.1", max_workers_per_node=workers, provider=provider)
    return ParslPoolExecutor(Config(executors=[htex], run_dir="parsl"))


POOLS: Dict[str, Callable[[int], Executor]] = {
    "process-pool": _process_pool,
    "ours": _ours,
    "loky": _loky,
    "executorlib": _executorlib,
    "dask": _dask,
    "parsl": _parsl,
}
