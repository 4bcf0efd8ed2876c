"""CPython's own tests of executors, imported from the running interpreter, with a pool of ours in the place of its own.

They are run as they are. What is left out is in `LEFT_OUT`, with the reason. Interpreters that come without their tests
have nothing to import; those that have them are enough.
"""

import gc
import importlib
import unittest
from concurrent import futures

import pytest
from file_event import FileEvent

from qcg.pilotjob.executor_api import QCGPJExecutor

_OF_A_PROCESS_POOL = "it starts a ProcessPoolExecutor or ThreadPoolExecutor, by name, in a program of its own"
LEFT_OUT = {
    "test_interpreter_shutdown": _OF_A_PROCESS_POOL,
    "test_submit_after_interpreter_shutdown": _OF_A_PROCESS_POOL,
    "test_hang_gh83386": _OF_A_PROCESS_POOL,
    "test_shutdown_deadlock_pickle": "it joins a ProcessPoolExecutor's thread, which it takes from a private attribute",
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": "it replaces private parts of a ProcessPoolExecutor",
}
MIXINS = {
    "ExecutorTest": "executor",
    "WaitTests": "test_wait",
    "AsCompletedTests": "test_as_completed",
    "ExecutorShutdownTest": "test_shutdown",
    "ExecutorDeadlockTest": "test_deadlock",
}


class Pool:
    """What the tests take for the type of the executor."""

    owner = None

    def __new__(cls, max_workers, mp_context=None):  # noqa: ARG004  # some of the tests give it
        return cls.owner.functions(max_workers)


class PoolMixin:
    worker_count = 5
    executor_type = Pool
    ctx = "fork"  # some tests ask for it
    events = 0

    @pytest.fixture(autouse=True)
    def directory(self, tmp_path):
        self.tmp_path = tmp_path

    def setUp(self):
        if self._testMethodName in LEFT_OUT:
            self.skipTest(LEFT_OUT[self._testMethodName])
        super().setUp()
        Pool.owner = QCGPJExecutor(wd=self.tmp_path, resources=self.worker_count)
        self.executor = Pool(max_workers=self.worker_count)

    def tearDown(self):
        self.executor.shutdown(wait=True)
        self.executor = None
        Pool.owner.shutdown()
        Pool.owner = None
        gc.collect()  # the threads that have ended are looked for
        super().tearDown()

    def get_context(self):
        return None

    def create_event(self):  # asked for from Python 3.14 on
        self.events += 1
        return FileEvent(self.tmp_path / f"event{self.events}")


def _find(name, part):
    try:
        package = importlib.import_module("test.test_concurrent_futures")
    except ModuleNotFoundError:
        return None, None
    if not hasattr(package, "__path__"):  # before Python 3.12
        return getattr(package, name), package.BaseTestCase
    importlib.import_module("test.test_concurrent_futures.util")
    module = importlib.import_module(f"test.test_concurrent_futures.{part}")
    return getattr(module, name), package.util.BaseTestCase


for _name, _part in MIXINS.items():
    _mixin, _base = _find(_name, _part)
    if _mixin is not None:
        globals()[f"Pool{_name}"] = type(f"Pool{_name}", (PoolMixin, _mixin, _base), {"__module__": __name__})


def test_some_interpreter_has_these_tests():
    if _find("ExecutorTest", "executor")[0] is None:
        pytest.skip("this Python comes without its own tests")
    assert issubclass(globals()["PoolExecutorTest"], unittest.TestCase)
    assert futures.ProcessPoolExecutor is not Pool
