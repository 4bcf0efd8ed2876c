"""Jobs that reach the manager by the core's own client, past the executor's checks: none of them harms the others."""

import time
from pathlib import Path

import psutil
import pytest
from qcg.pilotjob.api.errors import ConnectionError as CoreConnectionError
from qcg.pilotjob.api.errors import TimeoutElapsed
from qcg.pilotjob.api.job import Jobs

from qcg.pilotjob.executor_api import BasicTemplate, IterationTemplate, QCGPJExecutor


def job(name, **parts):
    return {"name": name, "execution": {"exec": "true"}, **parts}


def submit(manager, *jobs):
    return manager.send_request({"request": "submit", "jobs": list(jobs)})["data"]["jobs"]


def goes_on(executor, name="after"):
    return executor.submit(BasicTemplate, name=name, exec="true").result(20) == {name: "SUCCEED"}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (job("a", resources={"numCores": 99}), "Not enough resources"),
        (job("a", dependencies={"after": ["nobody"]}), "'nobody'"),
        (job("a", dependencies={"after": ["a"]}), "the jobs a wait for each other"),
        (job("a", iteration={"values": []}), "no iterations"),
        (job("a", resources={"numCores": {"exact": 1, "min": 1}}), "Exact number"),
        (job("a", iteration={"stop": 2}, resources={"numCores": {"min": 1, "scheduler": {"no": "name"}}}), "name"),
        (job("a b"), "contains ' '"),
        (job("../a"), "has the part '..'"),
        ({"name": "a", "execution": {}}, "not defined"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_can_never_run_is_refused_and_its_name_stays_free(executor, wrong, reason):
    manager = executor.qcgpj_manager
    with pytest.raises(CoreConnectionError, match=reason):
        submit(manager, job("first"), wrong)
    assert "first" not in manager.list()
    assert submit(manager, job("first"), job("a")) == ["first", "a"]
    assert manager.wait4(["first", "a"]) == {"first": "SUCCEED", "a": "SUCCEED"}
    assert goes_on(executor)


@pytest.mark.parametrize("resources", [{"numNodes": 1, "numCores": 1, "nodeCrs": {"gpu": 1}}, {"numCores": 1.5}])
def test_resources_that_break_the_cores_scheduler_fail_their_job_only(executor, resources):
    manager = executor.qcgpj_manager
    try:
        submit(manager, job("a", resources=resources))
        outcome = manager.wait4("a", timeout=20)["a"]
    except CoreConnectionError:
        outcome = "refused"
    assert outcome in ("refused", "FAILED")
    assert goes_on(executor)


def test_a_job_as_wide_as_the_machine_is_refused_when_a_core_is_reserved(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2, reserve_core=True) as executor:
        with pytest.raises(CoreConnectionError, match="jobs can use 1 here"):
            submit(executor.qcgpj_manager, job("a", resources={"numCores": 2}))
        assert goes_on(executor)


def test_the_cores_client_works_as_documented(executor, tmp_path):
    manager = executor.qcgpj_manager
    jobs = Jobs().add(name="a", script="echo ${it}", stdout="a.${it}", iteration=4).add(name="b", exec="false")
    assert manager.submit(jobs) == ["a", "b"]
    assert manager.wait4(["a", "b"]) == {"a": "SUCCEED", "b": "FAILED"}
    manager.wait4all()
    assert [(tmp_path / f"a.{n}").read_text() for n in range(4)] == ["0\n", "1\n", "2\n", "3\n"]
    assert manager.info("b")["jobs"]["b"]["data"]["runtime"]["exit_code"] == "1"
    assert manager.info_parsed("a")["a"].iterations["total"] == 4
    assert set(manager.list()) == {"a", "b"}
    manager.remove("a")
    assert set(manager.list()) == {"b"}
    assert manager.system_status()["Resources"]["TotalCores"] == 4


def test_leaving_waits_for_jobs_that_were_submitted_by_hand(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        executor.qcgpj_manager.submit(Jobs().add(name="a", script="sleep 0.3; echo > ended"))
    assert (tmp_path / "ended").exists()


def test_jobs_that_wait_for_each_other_are_refused(executor):
    manager = executor.qcgpj_manager
    circle = [job("a", dependencies={"after": ["c"]}), job("b", dependencies={"after": ["a"]})]
    with pytest.raises(CoreConnectionError, match="wait for each other"):
        submit(manager, *circle, job("c", dependencies={"after": ["b"]}))
    assert submit(manager, job("c"), *circle) == ["c", "a", "b"]
    assert manager.wait4(["a", "b", "c"]) == {"a": "SUCCEED", "b": "SUCCEED", "c": "SUCCEED"}


def test_a_number_in_the_environment_becomes_text(executor, tmp_path):
    execution = {"exec": "bash", "args": ["-c", "echo $N > out"], "env": {"N": 3}}
    submit(executor.qcgpj_manager, {"name": "a", "execution": execution})
    assert executor.attach("a").result(20) == {"a": "SUCCEED"}
    assert (tmp_path / "out").read_text() == "3\n"


def test_waiting_by_hand_depends_on_no_event(executor, tmp_path):
    manager = executor.qcgpj_manager
    assert manager._zmq_status_socket is None
    jobs = Jobs().add(name="a", script="until [ -e go ]; do sleep 0.01; done", iteration=2).add(name="b", exec="false")
    manager.submit(jobs)
    for wait in (lambda: manager.wait4("a", 0.1), lambda: manager.wait4("a:1", 0.1), lambda: manager.wait4all(0.1)):
        with pytest.raises(TimeoutElapsed):
            wait()
    (tmp_path / "go").touch()
    assert manager.wait4(["b", "a", "a:1"]) == {"b": "FAILED", "a": "SUCCEED", "a:1": "SUCCEED"}
    manager.wait4all()
    with pytest.raises(CoreConnectionError, match="nobody"):
        manager.wait4("nobody")
    manager.submit(Jobs().add(name="c", exec="sleep", args=["1000"]))
    manager.cancel("c")
    assert manager.wait4("c") == {"c": "CANCELED"}


def test_events_that_nobody_takes_are_kept_by_nobody(executor):
    assert goes_on(executor)  # so the executor is connected
    events = executor._connection.dispatcher.link.events[len("ipc://") :]
    before = Path("/proc/net/unix").read_text().count(events)
    assert before >= 2
    assert executor.qcgpj_manager.resources()["total_cores"] == 4
    assert Path("/proc/net/unix").read_text().count(events) == before
    futures = [executor.submit(BasicTemplate, name=f"n{n}", exec="true") for n in range(50)]
    assert all(future.result(60) for future in futures)
    told = [executor.qcgpj_manager.wait4_any_job_finish(20) for _ in futures]  # none is missed all the same
    assert set(told) == {(f"n{n}", "SUCCEED") for n in range(50)}


def test_no_end_is_missed_from_the_connection_on(executor, tmp_path):
    manager = executor.qcgpj_manager
    manager.submit(Jobs().add(name="a", exec="true").add(name="b", exec="false"))
    told = {manager.wait4_any_job_finish(20) for _ in range(2)}
    assert told == {("a", "SUCCEED"), ("b", "FAILED")}
    with QCGPJExecutor(manager=tmp_path) as second:  # whose greeting is heard by all
        second.submit(IterationTemplate, name="c", exec="true", stop=1)
    assert manager.wait4_any_job_finish(20) == ("c:0", "SUCCEED")
    assert manager.wait4_any_job_finish(20) == ("c", "SUCCEED")
    with pytest.raises(TimeoutElapsed):
        manager.wait4_any_job_finish(0.1)
    executor.shutdown()
    with pytest.raises(CoreConnectionError):
        manager.wait4_any_job_finish(20)


@pytest.mark.parametrize(
    "wait", [lambda manager: manager.wait4("a:0", timeout=0.5), lambda manager: manager.wait4all(timeout_secs=0.5)]
)
def test_a_wait_keeps_its_timeout_when_the_manager_does_not_answer(executor, wait):
    array = executor.submit(IterationTemplate, name="a", exec="sleep", args=["1000"], stop=2)
    assert executor.qcgpj_manager.status("a")["jobs"]["a"]["status"] == 0
    process = psutil.Process(executor._connection.dispatcher.link.process.pid)
    process.suspend()
    before = time.monotonic()
    try:
        with pytest.raises(TimeoutElapsed):
            wait(executor.qcgpj_manager)
        assert time.monotonic() - before < 30  # any one of its questions waits for a minute
    finally:
        process.resume()
    assert array.cancel()
