"""What goes wrong in and around calls of functions: a pool goes on, or says what has happened, and never hangs."""

import dataclasses
import gc
import math
import os
import shutil
import sys
import threading
import weakref

import numpy as np
import pytest

from qcg.pilotjob.executor_api import BasicTemplate, ExecutorClosed, InvalidJob, InvalidOption, QCGPJExecutor
from qcg.pilotjob.executor_api._functions.hub import Hub
from qcg.pilotjob.executor_api._functions.rendezvous import Rendezvous
from qcg.pilotjob.executor_api._functions.workers import WorkerSet
from qcg.pilotjob.executor_api.call_errors import BrokenCall, CallFailed


@pytest.fixture
def pool(executor):
    return executor.functions(1)


# ---- the thread of a pool fails


def fail_in(owner, name):
    """Return what makes a function of a pool's thread raise, as a fault of its own would."""

    def fail_from_now_on(monkeypatch):
        def fail(*_, **__):
            raise OSError("no such luck")

        monkeypatch.setattr(owner, name, fail)

    return pytest.param(fail_from_now_on, id=f"{owner.__name__}.{name}")


@pytest.fixture
def held_call(executor, tmp_path, gate, wait_until):
    """A pool, a call that runs, and a function that has the call end, or its process die."""
    pool = executor.functions(1)
    held = pool.submit(lambda: [gate.wait(), os._exit(1) if (tmp_path / "die").exists() else None])
    wait_until(gate.is_waited_for)

    def let_it_die(dies):
        if dies:
            (tmp_path / "die").touch()
        gate.open()

    return pool, held, let_it_die


@pytest.mark.parametrize(
    "fail_from_now_on",
    [
        fail_in(Hub, "_answered"),
        fail_in(Hub, "_round"),
        fail_in(WorkerSet, "go_on"),
        fail_in(WorkerSet, "has_ended"),
        fail_in(WorkerSet, "_has_died"),
        fail_in(Rendezvous, "send"),
    ],
)
def test_a_pool_whose_thread_fails_ends_all_its_calls_with_the_reason(
    executor, held_call, monkeypatch, fail_from_now_on, caplog
):
    pool, held, let_it_die = held_call
    waiting = [pool.submit(pow, 2, number) for number in range(5)]
    fail_from_now_on(monkeypatch)
    let_it_die({WorkerSet.has_ended.__name__, WorkerSet._has_died.__name__} & {"fail"})
    for future in (held, *waiting):
        error = future.exception(30)
        if error is None:  # one that had its value before
            continue
        assert isinstance(error, BrokenCall)
        assert "OSError: no such luck" in str(error)
        assert isinstance(error.__cause__, OSError)
    assert waiting[-1].exception(0) is not None
    with pytest.raises(BrokenCall, match="no such luck"):
        pool.submit(pow, 2, 3)
    assert "has failed, with all of its calls" in caplog.text
    monkeypatch.undo()
    assert executor.functions().submit(pow, 2, 3).result(30) == 8  # other pools go on
    executor.shutdown()  # the workers of this one have ended


# ---- what users do to futures, and calls to their streams


@pytest.mark.parametrize("end", ["set_result", "set_exception"])
@pytest.mark.parametrize("when", ["waits", "runs"])
def test_a_future_that_the_user_resolves(pool, gate, wait_until, end, when):
    running = pool.submit(gate.wait)
    waiting = pool.submit(gate.wait)
    wait_until(gate.is_waited_for)
    future = running if when == "runs" else waiting
    value = ValueError("by hand") if end == "set_exception" else "by hand"
    getattr(future, end)(value)
    gate.open()
    assert pool.submit(pow, 2, 3).result(30) == 8
    assert (future.exception(0) if end == "set_exception" else future.result(0)) is value


def test_a_frozen_exception(pool):
    @dataclasses.dataclass(frozen=True)
    class Frozen(Exception):
        pass

    @dataclasses.dataclass(frozen=True)
    class FrozenWithCode(Exception):
        code: int

    def fail(error):
        raise error

    error = pool.submit(lambda: fail(Frozen())).exception(30)
    assert type(error).__name__ == "Frozen"
    assert "raise error" in str(error.__cause__)
    error = pool.submit(lambda: fail(FrozenWithCode(3))).exception(30)  # nobody can unpickle such a one
    assert isinstance(error, CallFailed)
    assert "raise error" in str(error.__cause__)


def redirect():
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def redirect_to_a_file():
    other = os.open("other", os.O_RDWR | os.O_CREAT)
    os.write(other, b"o" * 5000)
    os.dup2(other, 1)
    os.dup2(other, 2)


def truncate():
    for stream in (1, 2):
        os.ftruncate(stream, 0)
        os.lseek(stream, 0, 0)


def close():
    os.close(1)
    os.close(2)


@pytest.mark.parametrize("change", [redirect, redirect_to_a_file, truncate, close])
def test_a_call_that_changes_its_streams(pool, change):
    def write(text):
        os.write(1, text)
        os.write(2, text)

    def change_and_fail():
        change()
        raise ValueError("it failed")

    before = pool.submit(write, b"x" * 1000)
    assert before.result(30) is None
    failed = pool.submit(change_and_fail)
    assert isinstance(failed.exception(30), ValueError)
    assert "xxx" not in str(failed.exception(0).__cause__)
    assert (failed.stdout, failed.stderr) == ("", "")
    if change is truncate:
        after = pool.submit(write, b"after")
        assert after.result(30) is None
        assert (after.stdout, after.stderr) == ("after", "after")
    else:
        assert before.stdout == before.stderr == "x" * 1000
        assert pool.submit(pow, 2, 3).result(30) == 8


def test_much_on_stderr_of_a_call_that_fails_is_not_read(pool):
    def fail_loudly():
        for _ in range(40):
            sys.stderr.write("x" * 2**20)
        sys.stderr.write("\nthe last words\n")
        raise ValueError("it failed")

    future = pool.submit(fail_loudly)
    cause = future.exception(30).__cause__
    assert len(cause.stderr) <= 70_000
    assert str(cause).endswith("  | the last words\n")
    assert len(future.stderr) > 40 * 2**20  # all of it is there for who asks


def test_the_directory_of_the_run_is_removed(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        pool = executor.functions()

        def fail():
            print("unheard", file=sys.stderr)
            return 1 / 0

        assert pool.submit(pow, 2, 3).result(30) == 8
        for directory in tmp_path.glob(".qcgpjm-*"):
            shutil.rmtree(directory)
        assert isinstance(pool.submit(fail).exception(30), ZeroDivisionError)
        assert pool.submit(pow, 2, 3).result(30) == 8


def test_exceptions_and_streams_that_raise(pool):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    class Stuck:
        def write(self, text):
            pass

        def flush(self):
            raise RuntimeError("no flush")

    def fail():
        raise Mute

    def leave_it_stuck():
        sys.stdout = Stuck()
        return os.getpid()

    assert type(pool.submit(fail).exception(30)).__name__ == "Mute"
    pid = pool.submit(leave_it_stuck).result(30)
    assert pool.submit(os.getpid).result(30) == pid


# ---- options


@pytest.mark.parametrize(
    "given",
    [
        {"idle_seconds": None},
        {"idle_seconds": "5"},
        {"idle_seconds": -1},
        {"idle_seconds": math.nan},
        {"idle_seconds": True},
        {"retries": None},
        {"retries": "2"},
        {"retries": -1},
        {"retries": 1.5},
        {"max_workers": "2"},
        {"max_workers": 1.5},
        {"max_workers": 0},
        {"cores": None},
        {"cores": "2"},
        {"cores": 1.5},
        {"cores": 0},
        {"nodes": 0},
        {"nodes": "1"},
        {"walltime": -1},
        {"walltime": "0s"},
        {"walltime": "10:30"},
        {"env": "A=1"},
        {"model": 5},
        {"wd": 5},
        {"modules": 5},
        {"venv": 5},
    ],
    ids=str,
)
def test_options_that_have_no_meaning_are_refused_at_once(executor, given):
    ((name, value),) = given.items()
    with pytest.raises((InvalidOption, InvalidJob), match=name) as caught:
        executor.functions(**given)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"idle_seconds": math.inf},
        {"idle_seconds": 1e9},
        {"idle_seconds": np.float32(3)},
        {"retries": np.int64(1)},
        {"walltime": "9999h"},
    ],
    ids=str,
)
def test_times_may_be_as_long_as_one_likes(executor, given):
    pool = executor.functions(1, **given)
    for _ in range(3):  # the first worker has served when the second call comes: the pool looks at its clock
        assert pool.submit(pow, 2, 3).result(30) == 8
    pool.shutdown()


@pytest.mark.parametrize("idle_seconds", [0, 1e-9])
def test_workers_that_may_not_be_idle(executor, idle_seconds):
    pool = executor.functions(1, idle_seconds=idle_seconds)
    assert [pool.submit(pow, 2, number).result(30) for number in range(3)] == [1, 2, 4]
    assert list(pool.map(pow, [2] * 50, range(50))) == [2**number for number in range(50)]
    pool.shutdown()
    assert len(list(executor.record())) <= 4  # one for each time that there was something to do


# ---- threads, and ends


def test_a_thread_that_cannot_be_started(executor, monkeypatch):
    start = threading.Thread.start

    def start_none(thread):
        if thread.name == "qcgpj-functions":
            raise RuntimeError("can't start new thread")
        start(thread)

    pool = executor.functions()
    monkeypatch.setattr(threading.Thread, "start", start_none)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        pool.submit(pow, 2, 3)
    monkeypatch.undo()
    assert pool.submit(pow, 2, 3).result(30) == 8
    pool.shutdown()


def test_leaving_after_a_thread_could_not_be_started(tmp_path, monkeypatch):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        pool = executor.functions()
        monkeypatch.setattr(Hub, "_run", None)

        def start_none(thread):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", start_none)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(pow, 2, 3)
        pool.shutdown()
    executor.shutdown(wait=False)


def test_a_shutdown_that_does_not_wait_needs_no_thread(tmp_path, monkeypatch, gate):
    executor = QCGPJExecutor(wd=tmp_path, resources=1)
    future = executor.functions().submit(gate.wait)

    def start_none(thread):
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start_none)
    executor.shutdown(wait=False)
    gate.open()
    assert future.result(30) is None
    executor.shutdown()


@pytest.mark.parametrize("of", ["call", "job"])
@pytest.mark.parametrize("what", ["executor", "pool", "executor without waiting"])
def test_a_shutdown_in_a_callback(tmp_path, gate, of, what):
    executor = QCGPJExecutor(wd=tmp_path, resources=2)
    pool, other = executor.functions(), executor.functions()
    held = other.submit(gate.wait)
    shut_down = {
        "executor": executor.shutdown,
        "pool": pool.shutdown,
        "executor without waiting": lambda: executor.shutdown(wait=False),
    }[what]
    ended, go = threading.Event(), tmp_path / "end"
    script = f"while test ! -e {go}; do sleep 0.01; done"
    if of == "job":
        future = executor.submit(BasicTemplate, name="job", exec="sh", args=["-c", script])
    else:
        future = pool.submit(os.system, script)
    future.add_done_callback(lambda _: (shut_down(), ended.set()))
    go.touch()
    assert ended.wait(30)
    gate.open()
    assert held.result(30) is None
    with pytest.raises(ExecutorClosed):
        pool.submit(pow, 2, 3)
    executor.shutdown()


def test_an_executor_and_a_pool_that_are_dropped_make_their_calls(tmp_path, wait_until):
    def start():
        executor = QCGPJExecutor(wd=tmp_path, resources=2)
        return executor.functions().map(abs, range(-5, 5)), weakref.ref(executor)

    values, executor = start()
    gc.collect()
    assert list(values) == list(map(abs, range(-5, 5)))
    wait_until(lambda: gc.collect() is not None and executor() is None)


def test_a_future_that_is_kept_keeps_no_executor(tmp_path, wait_until):
    executor = QCGPJExecutor(wd=tmp_path, resources=1)
    future = executor.functions().submit(pow, 2, 3)
    assert future.result(30) == 8
    executor = weakref.ref(executor)
    wait_until(lambda: gc.collect() is not None and executor() is None)


# ---- descriptors


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_arrays_that_wait_and_that_are_kept_hold_few_descriptors(executor, gate, wait_until):
    pool = executor.functions(1)
    assert pool.submit(pow, 2, 3).result(30) == 8
    before = descriptors()
    held = pool.submit(gate.wait)
    wait_until(gate.is_waited_for)
    given = [np.full(131_072 + number, float(number)) for number in range(150)]
    futures = [pool.submit(lambda array: array + 1, array) for array in given]
    assert descriptors() <= before + 70
    gate.open()
    values = [future.result(60) for future in futures]
    assert held.result(30) is None
    assert descriptors() <= before + 2
    for array, value in zip(given, values):
        value[0] = -1  # it can be written to
        assert np.array_equal(array[1:] + 1, value[1:])


def test_one_value_of_many_arrays(executor):
    pool = executor.functions(1)
    values = pool.submit(lambda: [np.full(131_072, float(number)) for number in range(150)]).result(60)
    assert [value[-1] for value in values] == list(range(150))
