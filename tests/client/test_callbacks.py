"""Callbacks of futures that raise what ends a thread: jobs and calls go on."""

import logging
import sys

import pytest

from qcg.pilotjob.executor_api import BasicTemplate


def leave(_):
    sys.exit("from the callback")


def interrupt(_):
    raise KeyboardInterrupt


@pytest.fixture(params=["job", "call"])
def submit(request, executor, gate):
    """A function that submits what ends when it is told to; returns its future and what tells it."""
    if request.param == "call":
        pool = executor.functions(1)
        return lambda: (pool.submit(gate.wait), gate.open)

    def submit():
        script = f"while test ! -e {gate.path}; do sleep 0.01; done"
        return executor.submit(BasicTemplate, name="first", exec="sh", args=["-c", script]), gate.open

    return submit


@pytest.mark.parametrize("callback", [leave, interrupt], ids=["SystemExit", "KeyboardInterrupt"])
def test_a_callback_ends_no_thread_of_the_executor(executor, submit, callback, caplog):
    future, let_it_end = submit()
    called = []
    future.add_done_callback(callback)
    future.add_done_callback(called.append)
    let_it_end()
    future.result(30)
    assert executor.submit(BasicTemplate, name="after", exec="true").result(30) == {"after": "SUCCEED"}
    assert executor.functions().submit(pow, 2, 3).result(30) == 8
    assert called == [future]
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.name for record in logged] == ["concurrent.futures"]
    assert "exception calling callback" in logged[0].message


def test_a_callback_that_exits_is_heard_in_the_thread_of_its_own(executor, submit):
    future, let_it_end = submit()
    future.add_done_callback(leave)
    with pytest.raises(SystemExit):
        future._cancel_now() if hasattr(future, "_cancel_now") else future.cancel()
    let_it_end()
