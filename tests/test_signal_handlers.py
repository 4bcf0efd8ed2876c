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
            if not frame.f_code.co_filename.endswith("_client/report.py"):
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
    monkeypatch.setattr("qcg.pilotjob.executor_api._client.source._ANSWER_SECONDS", 0.2)
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
