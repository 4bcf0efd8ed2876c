"""What is asked in a signal handler, or a finalizer, while the thread that it interrupts asks the same."""

import os
import signal

import pytest

from qcg.pilotjob.executor_api import JobTimeout, ScriptTemplate


def test_info_at_each_line_of_info(run_script):
    run = run_script(
        """
        import sys
        from qcg.pilotjob.executor_api import IterationTemplate, QCGPJExecutor, ScriptTemplate

        told, depth = [], []

        def at_each_line(frame, event, argument):
            if not frame.f_code.co_filename.endswith("_client/ended_jobs.py"):
                return None
            if not depth:
                depth.append(1)
                told.append((array.info(), job.info()))
                depth.pop()
            return at_each_line

        with QCGPJExecutor(wd=".", resources=2) as executor:
            job = executor.submit(ScriptTemplate, name="job", script="exit 3")
            array = executor.submit(IterationTemplate, name="array", stop=3, exec="true")
            job.result(), array.result()
            sys.settrace(at_each_line)
            first = array.info(), job.info()
            sys.settrace(None)
            assert told and first == (array.info(), job.info())
            assert all(each == first for each in told)
            assert len(first[0]["array"]["childs"]) == 3
            assert first[1]["job"]["runtime"]["exit_code"] == "3"
            print(len(told))
        """,
        timeout=60,
    )
    assert int(run.stdout) > 50


def test_status_of_a_manager_that_does_not_answer(executor, gate, monkeypatch):
    monkeypatch.setattr("qcg.pilotjob.executor_api._shared.protocol.ANSWER_SECONDS", 0.2)
    future = executor.submit(ScriptTemplate, name="a", script=f"while [ ! -e {gate.path} ]; do sleep 0.01; done")
    assert set(future.status()) == {"a"}
    manager = executor._connection.dispatcher.link.process.pid
    os.kill(manager, signal.SIGSTOP)
    try:
        with pytest.raises(JobTimeout, match=r"the manager has not answered for 0\.2 s; the jobs go on"):
            future.status()
    finally:
        os.kill(manager, signal.SIGCONT)
        gate.open()
    monkeypatch.undo()
    assert future.result(30) == {"a": "SUCCEED"}


_AT_EACH_LINE = """
import itertools, sys
from qcg.pilotjob.executor_api import BasicTemplate, QCGPJExecutor

from qcg.pilotjob.executor_api._client import inbox
from qcg.pilotjob.executor_api._client import core_client as manager
from qcg.pilotjob.executor_api._client import answers as source
from qcg.pilotjob.executor_api._functions import hub
from qcg.pilotjob.executor_api._functions import calls as waiting

files = [each.__file__ for each in (inbox, manager, source, hub, waiting)]  # where the thread has a lock, or waits
numbers, seen, depth, futures, records = itertools.count(), set(), [], [], []

def submit():
    futures.append(executor.submit(BasicTemplate, name=f"j{next(numbers)}", exec="true"))

def cancel():
    futures.append(executor.submit(BasicTemplate, name=f"j{next(numbers)}", exec="sleep", args=["1000"]))
    futures[-1].cancel()

def call():
    power = next(numbers)
    calls.append((power, pool.submit(pow, 2, power)))

def look():
    first.status(), first.info(), executor.record()

def at_hand():
    executor.qcgpj_manager.resources()

def in_handler():
    submit(), cancel(), look(), call(), at_hand()
    first.add_done_callback(lambda _: None)

def at_each_line(frame, event, argument):
    where = frame.f_code.co_filename, frame.f_lineno
    if where[0] not in files:
        return None
    if not depth and where not in seen:
        seen.add(where)
        depth.append(1)
        in_handler()
        depth.pop()
    return at_each_line

with QCGPJExecutor(wd=".", resources=3) as executor:
    calls, pool = [], executor.functions(1)
    first = executor.submit(BasicTemplate, name="first", exec="sleep", args=["1000"])
    sys.settrace(at_each_line)
    ACTION()
    sys.settrace(None)
    first.cancel()
    assert all(each.result() == 2**power for power, each in calls)
    states = [each.exception() if not each.cancelled() else None for each in futures]
    assert not any(states), states
    rows = {row["name"]: row["state"] for row in executor.record()}
    ended = {name: state for each in futures for name, state in each.status().items()}
    assert all(rows[name] == state for name, state in ended.items())
print(len(seen))
"""


@pytest.mark.parametrize("action", ["submit", "cancel", "call", "look", "at_hand"])
def test_all_that_a_handler_may_ask_at_each_line(run_script, action):
    run = run_script(_AT_EACH_LINE.replace("ACTION", action), timeout=100)
    assert int(run.stdout) > 10
