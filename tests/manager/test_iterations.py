"""Arrays: the truth about the whole and about each iteration, and cancelling some or all of them."""

import time
from concurrent.futures import CancelledError
from datetime import datetime

import psutil
import pytest

from qcg.pilotjob.executor_api import IterationTemplate, JobFailed, QCGPJExecutor, ScriptTemplate

ARRAY = "{'name': '${name}', 'iteration': {'stop': ${stop}}, 'execution': {'script': '${script}'}}"


def states(future):
    ((_, iterations),) = future.iterations().items()
    return [iteration.state for iteration in iterations]


def test_each_iteration_is_told_while_the_array_runs_and_after(tmp_path, wait_until):
    script = "case ${it} in 0) exit 0;; 1) exit 7;; 2) kill -KILL $$;; esac; until [ -e go ]; do sleep 0.01; done"
    with QCGPJExecutor(wd=tmp_path, resources="n1:2,n2:2") as executor:
        array = executor.submit(lambda: ARRAY, name="a", stop=6, script=script)
        wait_until(lambda: states(array) == ["SUCCEED", "FAILED", "FAILED", "EXECUTING", "EXECUTING", "EXECUTING"])
        running = array.iterations()["a"][3]
        assert (running.exit_code, running.ended) == (None, None)
        assert running.started <= datetime.now().astimezone()
        (node,) = running.cores
        assert node in ("n1", "n2")
        assert len(running.cores[node]) == 1
        (tmp_path / "go").touch()
        assert array.result(20) == {"a": "FAILED"}
        live = array.iterations()
    after = array.iterations()
    assert after == live
    assert [iteration.exit_code for iteration in after["a"]] == [0, 7, -9, 0, 0, 0]
    assert [iteration.iteration for iteration in after["a"]] == list(range(6))
    assert all(iteration.started <= iteration.ended for iteration in after["a"])


def test_a_program_that_is_not_there_is_told_for_each_iteration(executor):
    array = executor.submit(IterationTemplate, name="a", exec="/no/such/program", stop=2)
    array.result(20)
    assert ["no program" in iteration.message for iteration in array.iterations()["a"]] == [True, True]
    with pytest.raises(JobFailed, match="iteration 0 FAILED with exit code 127: cannot start: no program"):
        array.raise_for_status()


def test_a_job_that_is_no_array_has_no_iterations(executor):
    job = executor.submit(ScriptTemplate, name="a", script="true")
    job.result(20)
    assert job.iterations() == {}


@pytest.mark.parametrize("order", ["${it}", "3 - ${it}"])
def test_the_state_of_the_whole_in_whatever_order_iterations_end(executor, order):
    # iteration 0 fails, first or last of all
    script = f"sleep $(echo $(( {order} ))e-1); [ ${{it}} != 0 ]"
    array = executor.submit(lambda: ARRAY, name="a", stop=4, script=script)
    assert array.result(20) == array.result(20) == array.status() == {"a": "FAILED"}
    assert states(array) == ["FAILED", "SUCCEED", "SUCCEED", "SUCCEED"]


@pytest.mark.parametrize("delay", [0, 0.005, 0.05])
def test_a_whole_array_cancelled_soon_after_its_submission(executor, delay, jobs_of):
    array = executor.submit(lambda: ARRAY, name="a", stop=60, script="sleep 0.02; sleep ${it}00")
    time.sleep(delay)  # the moment itself is what is varied
    assert array.cancel()
    with pytest.raises(CancelledError):
        array.result(0)
    assert array.status() == {"a": "CANCELED"}
    told = states(array)
    assert len(told) == 60
    assert set(told) <= {"SUCCEED", "CANCELED"}
    assert told.count("SUCCEED") <= 1
    assert jobs_of(psutil.Process(executor._connection.dispatcher.link.process.pid)) == []
    assert executor.qcgpj_manager.resources()["free_cores"] == 4


def test_an_array_that_is_half_done_is_cancelled_and_keeps_what_was_done(executor, tmp_path, wait_until):
    script = "[ ${it} -lt 5 ] || sleep 1000"
    array = executor.submit(lambda: ARRAY, name="a", stop=20, script=script)
    wait_until(lambda: states(array)[:5] == ["SUCCEED"] * 5)
    assert array.cancel()
    assert states(array) == ["SUCCEED"] * 5 + ["CANCELED"] * 15


def test_some_iterations_are_cancelled(executor, tmp_path, wait_until):
    script = "until [ -e go ]; do sleep 0.01; done"
    array = executor.submit(lambda: ARRAY, name="a", stop=8, script=script)
    wait_until(lambda: states(array)[:4] == ["EXECUTING"] * 4)
    assert array.cancel_iterations([1, 6]) == [1, 6]  # one runs, one is queued
    wait_until(lambda: (states(array)[1], states(array)[6]) == ("CANCELED", "CANCELED"))
    assert array.running()
    (tmp_path / "go").touch()
    assert array.result(20) == {"a": "FAILED"}
    assert [state for number, state in enumerate(states(array)) if number not in (1, 6)] == ["SUCCEED"] * 6
    assert array.cancel_iterations([2]) == []


def test_an_iteration_that_has_ended_is_not_cancelled(executor, tmp_path, wait_until):
    array = executor.submit(
        lambda: ARRAY, name="a", stop=2, script="[ ${it} = 0 ] || until [ -e go ]; do sleep 0.01; done"
    )
    wait_until(lambda: states(array)[0] == "SUCCEED")
    assert array.cancel_iterations([0]) == []
    assert array.cancel_iterations([]) == []
    (tmp_path / "go").touch()
    assert array.result(20) == {"a": "SUCCEED"}


def test_iterations_of_several_jobs_cannot_be_cancelled(executor):
    both = executor.submit(
        lambda: "[{'name': 'a', 'execution': {'exec': 'true'}}, {'name': 'b', 'execution': {'exec': 'true'}}]"
    )
    with pytest.raises(ValueError, match="2 jobs"):
        both.cancel_iterations([0])


def test_an_array_that_is_omitted_is_so_in_every_iteration(executor):
    bad = executor.submit(ScriptTemplate, name="bad", script="exit 1")
    array = executor.submit(IterationTemplate, name="a", exec="true", stop=3, after=bad)
    assert array.result(20) == {"a": "OMITTED"}
    assert states(array) == ["OMITTED"] * 3


def test_a_walltime_holds_where_a_scheduler_chooses_the_sizes(tmp_path):
    text = """{
        "name": "long", "iteration": {"stop": 1}, "execution": {"exec": "sleep", "args": ["60"]},
        "resources": {"numCores": {"min": 1, "scheduler": {"name": "maximum-iters"}}, "wt": "1s"}
    }"""
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        future = executor.submit(lambda: text)
        assert future.result(30) == {"long": "FAILED"}
