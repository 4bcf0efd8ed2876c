"""Arrays of many iterations, long scripts and values: they arrive whole, or are refused before they are sent."""

import json
from collections import Counter
from concurrent.futures import CancelledError

import psutil
import pytest

from qcg.pilotjob.executor_api import (
    BasicTemplate,
    InvalidJob,
    IterationTemplate,
    ManagerDied,
    ManagerStartError,
    QCGPJExecutor,
)
from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api.jobs import FINAL_STATES

MOST = 1_000_000


def manager_of(executor):
    return psutil.Process(executor._connection.dispatcher.link.process.pid)


@pytest.mark.parametrize(("start", "stop"), [(0, MOST + 1), (0, 10**9), (5, MOST + 6), (0, 10**30)])
def test_more_iterations_than_anybody_can_mean_are_refused(shared, start, stop):
    executor, _ = shared
    with pytest.raises(InvalidJob, match=r"has \d+ iterations; an array has 1000000 at the most"):
        executor.submit(IterationTemplate, name="a", exec="true", start=start, stop=stop)


def test_the_manager_refuses_them_too(shared):
    executor, _ = shared
    job = {"name": "by-hand", "execution": {"exec": "true"}, "iteration": {"stop": 10**9}}
    with pytest.raises(Exception, match="has 1000000000 iterations; an array has 1000000 at the most"):
        executor.qcgpj_manager.send_request({"request": "submit", "jobs": [job]})
    assert executor.submit(BasicTemplate, name="after", exec="true").result(20) == {"after": "SUCCEED"}


def test_iterations_that_have_not_begun_take_no_memory(tmp_path):
    with pytest.raises(KeyboardInterrupt), QCGPJExecutor(wd=tmp_path, resources=1) as executor:  # noqa: PT012
        executor.submit(BasicTemplate, name="first", exec="true").result(20)
        before = manager_of(executor).memory_info().rss
        array = executor.submit(IterationTemplate, name="a", exec="sleep", args=["1000"], stop=MOST)
        assert set(array.status()) == {"a"}
        assert manager_of(executor).memory_info().rss - before < 100 * 2**20
        manager_of(executor).kill()
        raise KeyboardInterrupt


@pytest.mark.parametrize("params", [{"parts": 4}, {}], ids=["parts", "iterations"])
def test_an_array_that_is_split_for_more_cores_is_not_resumed_on_less(tmp_path, params, wait_until):
    split = {"numCores": {"min": 1, "scheduler": {"name": "split-into", "params": params}}}
    script = "[ -e go ] || { touch begun.${it}; sleep 1000; sleep 1000; }"
    job = {"name": "a", "execution": {"exec": "bash", "args": ["-c", script]}, "resources": split}
    with pytest.raises(KeyboardInterrupt), QCGPJExecutor(wd=tmp_path, resources=4) as executor:  # noqa: PT012
        executor.submit(lambda: repr({**job, "iteration": {"stop": 4}}))
        wait_until(lambda: len(list(tmp_path.glob("begun.*"))) == 4)
        raise KeyboardInterrupt
    (tmp_path / "go").touch()
    with pytest.raises(ManagerStartError, match="job a is split into 4 parts, and there are 2 cores; give it more"):
        QCGPJExecutor(resume=tmp_path, resources=2)
    with QCGPJExecutor(resume=tmp_path, resources=4) as executor:
        assert executor.attach("a").result(20) == {"a": "SUCCEED"}


@pytest.mark.parametrize("character", ["x", "\N{EURO SIGN}", "\N{CAT FACE}"])
@pytest.mark.parametrize("login", [False, True])
def test_a_long_script_arrives_whole(tmp_path, character, login):
    said = character * (200_000 // len(character.encode()))
    lines = "\n".join(f"x{number}='{said}'" for number in range(4))
    script = f'{lines}\nprintf %s "$$x0$$x1$$x2$$x3"; true'
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        execution = {"script": script, "stdout": "out", "login": login}
        assert executor.submit(lambda: json.dumps({"name": "a", "execution": execution})).result(30) == {"a": "SUCCEED"}
    assert (tmp_path / "out").read_text() == 4 * said


@pytest.mark.parametrize(
    ("execution", "said"),
    [
        (
            {"exec": "true", "env": {"LONG": "x" * 131_067}},
            r"env: LONG has 131072 bytes; a process can be given 131071",
        ),
        ({"script": "true", "env": {"LONG": "x" * 131_067}}, r"env: LONG has 131072 bytes"),
        ({"exec": "true", "args": ["a", "\N{EURO SIGN}" * 50_000]}, r"args: \[1\] has 150000 bytes; a process can"),
        (
            {"script": "x" * 2_000_000},
            r"script has 2000\d\d\d bytes with its variables; a script has 1048576 at the most",
        ),
    ],
)
def test_what_no_process_can_be_given_is_refused(shared, execution, said):
    executor, _ = shared
    with pytest.raises(InvalidJob, match=said):
        executor.submit(lambda: json.dumps({"name": "a", "execution": execution}))


@pytest.mark.parametrize("size", [131_066, 100_000])
def test_what_a_process_can_just_be_given_arrives(tmp_path, size):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        execution = {"exec": "bash", "args": ["-c", "echo $$(expr length $$LONG) $$(expr length $$0)", "x" * size],
                     "env": {"LONG": "x" * size}, "stdout": "out"}  # fmt: skip
        assert executor.submit(lambda: json.dumps({"name": "a", "execution": execution})).result(30) == {"a": "SUCCEED"}


def _cancel_large_array(executor, wait_until, stop):
    array = executor.submit(IterationTemplate, name="a", exec="sleep", args=["1000"], stop=stop)
    dependent = executor.submit(BasicTemplate, name="after", exec="true", after=[array])
    wait_until(lambda: "EXECUTING" in array.status().values())
    cancelled = executor._connection.dispatcher.ask(protocol.request("cancelJob", ["a"]))
    others = executor._connection.dispatcher.ask(protocol.request("jobStatus", ["a"]))
    assert cancelled.reply.result(60)["code"] == 0
    return array, dependent, protocol.states(others.reply.result(60))["a"]


def test_a_large_array_that_is_cancelled_keeps_nobody_waiting(executor, wait_until):
    array, dependent, state = _cancel_large_array(executor, wait_until, 50_000)
    assert state not in FINAL_STATES  # the question was answered before all iterations were cancelled
    with pytest.raises(CancelledError):
        array.result(60)
    assert dependent.result(20) == {"after": "OMITTED"}
    assert Counter(one.state for one in array.iterations()["a"]) == {"CANCELED": 50_000}


def test_a_manager_that_is_killed_while_it_cancels_has_cancelled_all(tmp_path, wait_until):
    with pytest.raises(ManagerDied), QCGPJExecutor(wd=tmp_path, resources=2) as executor:  # noqa: PT012
        array, _, _ = _cancel_large_array(executor, wait_until, 50_000)
        manager_of(executor).kill()
        array.result(60)
    with QCGPJExecutor(resume=tmp_path, resources=2) as executor:
        attached = executor.attach("a")
        with pytest.raises(CancelledError):
            attached.result(60)
        states = Counter(one.state for one in attached.iterations()["a"])
    assert sum(states.values()) == 50_000
    assert states.keys() == {"CANCELED"}
