"""A name that is used again, after its job has ended and was removed, is another job: in the manager and on record."""

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path

import pytest
from qcg.pilotjob.api.errors import ConnectionError as CoreConnectionError

from qcg.pilotjob.executor_api import BasicTemplate, JobUnknown, ManagerDied, ParallelTemplate, QCGPJExecutor, RunRecord


def _array():
    """Make iterations that end at once up to number `slow`, and wait for the file ``go`` from there on."""
    wait = "[ ${it} -lt ${slow} ] || while [ ! -e go ]; do sleep 0.05; done"
    script = f"echo x >> ran.${{it}}; {wait}"
    job = {"name": "a", "iteration": {"stop": 0}, "execution": {"exec": "bash", "args": ["-c", script]}}
    return json.dumps(job).replace('"stop": 0', '"stop": ${stop}'), {}


def _after_array():
    script = "while [ ! -e go ]; do sleep 0.05; done"
    job = {"name": "b", "iteration": {"stop": 300}, "execution": {"exec": "sh", "args": ["-c", script]}}
    return json.dumps({**job, "dependencies": {"after": ["a:${it}"]}}), {}


def _runs(directory, number):
    path = directory / f"ran.{number}"
    return path.read_text().count("x") if path.exists() else 0


def _interrupted_with(executor):
    """Leave an executor as Ctrl-C does."""
    executor.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)


def _job(executor, name, program, *args):
    return executor.submit(BasicTemplate, name=name, exec=program, args=list(args))


def test_the_end_of_an_earlier_job_is_not_that_of_a_later_one(tmp_path, wait_until):
    executor = QCGPJExecutor(wd=tmp_path, resources=2)
    first = {name: _job(executor, name, program) for name, program in (("ok", "true"), ("bad", "false"))}
    assert {name: future.result()[name] for name, future in first.items()} == {"ok": "SUCCEED", "bad": "FAILED"}
    executor.qcgpj_manager.remove(["ok", "bad"])
    again = [_job(executor, name, "sleep", "60") for name in first]
    attached = executor.attach("ok")
    wait_until(lambda: all(set(future.status().values()) == {"EXECUTING"} for future in again))
    os.kill(executor._connection.dispatcher.link.process.pid, signal.SIGKILL)
    for future in (*again, attached):
        with pytest.raises(ManagerDied):
            future.result(30)
    executor.shutdown()


def test_each_future_tells_of_its_own_job(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        futures = []
        for code in (3, 4, 5):
            if futures:
                executor.qcgpj_manager.remove("x")
            futures.append(_job(executor, "x", "bash", "-c", f"exit {code}"))
            futures[-1].result()
        attached = executor.attach("x")
        attached.result()
    codes = [future.info()["x"]["runtime"]["exit_code"] for future in (*futures, attached)]
    assert list(map(int, codes)) == [3, 4, 5, 5]


def test_each_future_of_an_array_tells_of_its_own_iterations(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        first = executor.submit(_array, stop=1, slow=9)
        first.result()
        executor.qcgpj_manager.remove("a")
        second = executor.submit(_array, stop=3, slow=9)
        second.result()
        executor.qcgpj_manager.remove("a")
        third = _job(executor, "a", "true")
        third.result()
    assert [len(future.iterations().get("a", ())) for future in (first, second, third)] == [1, 3, 0]


def test_a_second_client_sees_the_last_one(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor, QCGPJExecutor(manager=tmp_path) as other:
        _job(executor, "x", "false").result()
        executor.qcgpj_manager.remove("x")
        again = _job(other, "x", "bash", "-c", "exit 7")
        assert again.result() == {"x": "FAILED"}
        assert int(again.info()["x"]["runtime"]["exit_code"]) == 7
        other.qcgpj_manager.remove("x")
        assert _job(other, "x", "true").result() == {"x": "SUCCEED"}


def test_an_interruption_is_that_of_the_job_that_was_interrupted(tmp_path, wait_until):
    executor = QCGPJExecutor(wd=tmp_path, resources=2)
    first = _job(executor, "a", "sleep", "60")
    wait_until(lambda: first.status()["a"] == "EXECUTING")
    assert first.cancel()
    executor.qcgpj_manager.remove(["a"])
    _job(executor, "a", "bash", "-c", "echo x >> a.ran; while [ ! -e go ]; do sleep 0.05; done")
    wait_until((tmp_path / "a.ran").exists)
    _interrupted_with(executor)
    (tmp_path / "go").touch()
    with QCGPJExecutor(resume=tmp_path, resources=2) as executor:
        assert executor.attach("a").result() == {"a": "SUCCEED"}
    record = RunRecord.of(tmp_path)
    assert [(row["state"], row["interrupted"]) for row in record] == [("SUCCEED", False)]
    assert [row["state"] for row in record.replaced] == ["CANCELED"]
    assert [row["interrupted"] for row in record.interruptions] == [True]


def _without_numbers(directory):
    """Make the record what it was up to release 0.15."""
    (run,) = Path(directory).glob(".qcgpjm-service-*")
    for name in ("jobs.report", "track.states"):
        text = (run / name).read_text()
        (run / name).write_text(re.sub(r', ?"submission": ?\d+', "", text))


@pytest.mark.parametrize("earlier_release", [False, True])
@pytest.mark.parametrize("first", [1, 6])
def test_another_number_of_iterations_is_taken_up(tmp_path, wait_until, first, earlier_release):
    executor = QCGPJExecutor(wd=tmp_path, resources=2)
    executor.submit(_array, stop=first, slow=9).result()
    for number in range(first):
        (tmp_path / f"ran.{number}").unlink()
    executor.qcgpj_manager.remove(["a"])
    future = executor.submit(_array, stop=4, slow=3)
    wait_until(lambda: [part.state for part in future.iterations()["a"]].count("SUCCEED") == 3)
    wait_until(lambda: _runs(tmp_path, 3) == 1)
    after = executor.submit(BasicTemplate, name="b", exec="true", after=["a:2", "a:3"])
    wait_until(lambda: after.status() == {"b": "QUEUED"})
    _interrupted_with(executor)
    (tmp_path / "go").touch()
    if earlier_release:
        _without_numbers(tmp_path)
    with QCGPJExecutor(resume=tmp_path, resources=2) as executor:
        assert executor.attach("b").result(60) == {"b": "SUCCEED"}
        assert executor.attach("a").result() == {"a": "SUCCEED"}
        assert len(executor.attach("a").iterations()["a"]) == 4
    assert [_runs(tmp_path, number) for number in range(5)] == [1, 1, 1, 2, 0]
    record = RunRecord.of(tmp_path)
    assert sorted((row["name"], row["iteration"]) for row in record if row["state"] == "SUCCEED") == [
        ("a", 0), ("a", 1), ("a", 2), ("a", 3), ("b", None)
    ]  # fmt: skip
    assert len(record) == 5
    assert len(record.replaced) == first


def test_a_repaired_failure_is_forgotten(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        for number in range(4):
            executor.submit(ParallelTemplate, name=f"n{number}", exec="false" if number % 2 else "true")
    failed = [row["name"] for row in RunRecord.of(tmp_path) if row["state"] != "SUCCEED"]
    assert sorted(failed) == ["n1", "n3"]
    with QCGPJExecutor(resume=tmp_path, resources=2) as executor:
        executor.qcgpj_manager.remove(failed)
        for name in failed:
            executor.submit(ParallelTemplate, name=name, exec="true").result()
        assert executor.record().summary().states == {"SUCCEED": 4}
    record = RunRecord.of(tmp_path)
    assert record.summary().states == {"SUCCEED": 4}
    assert not record.summary().failed
    assert sorted(row["name"] for row in record.replaced) == ["n1", "n3"]
    assert record.summary().wasted_core_hours > 0
    with QCGPJExecutor(resume=tmp_path, resources=2) as executor:
        assert executor.attach("n1").result() == {"n1": "SUCCEED"}


def test_what_is_submitted_again_and_has_not_ended_is_unfinished(tmp_path, wait_until):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        _job(executor, "x", "false").result()
        executor.qcgpj_manager.remove("x")
        again = _job(executor, "x", "bash", "-c", "while [ ! -e go ]; do sleep 0.05; done")
        wait_until(lambda: again.status()["x"] == "EXECUTING")
        assert [row["state"] for row in executor.record()] == ["EXECUTING"]
        assert [row["state"] for row in RunRecord.of(tmp_path)] == ["UNFINISHED"]
        (tmp_path / "go").touch()


def test_a_job_that_iterations_wait_for_is_not_removed(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        executor.submit(_array, stop=300, slow=999)
        after = executor.submit(_after_array)
        executor.attach("a").result()
        with pytest.raises(CoreConnectionError, match="'a' cannot be removed: iterations of 'b' wait"):
            executor.qcgpj_manager.remove(["a"])
        (tmp_path / "go").touch()
        assert after.result() == {"b": "SUCCEED"}
        assert Counter(part.state for part in after.iterations()["b"]) == {"SUCCEED": 300}
        executor.qcgpj_manager.remove(["a", "b"])


def test_what_waits_for_a_whole_job_runs_also_when_that_is_removed(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        first = _job(executor, "first", "true")
        blocking = _job(executor, "blocking", "sh", "-c", "while [ ! -e go ]; do sleep 0.05; done")
        after = executor.submit(BasicTemplate, name="after", exec="true", after=[first])
        first.result()
        executor.qcgpj_manager.remove("first")
        again = _job(executor, "first", "false")
        (tmp_path / "go").touch()
        assert [future.result() for future in (blocking, after, again)] == [
            {"blocking": "SUCCEED"}, {"after": "SUCCEED"}, {"first": "FAILED"}
        ]  # fmt: skip


@pytest.mark.parametrize(("names", "said"), [(["ran", "runs"], "'runs' cannot be removed"), (["ran", "no"], "no job")])
def test_all_is_removed_or_nothing_is(tmp_path, names, said):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        _job(executor, "ran", "true").result()
        _job(executor, "runs", "sh", "-c", "while [ ! -e go ]; do sleep 0.05; done")
        with pytest.raises(CoreConnectionError, match=said):
            executor.qcgpj_manager.remove(names)
        assert executor.attach("ran").result() == {"ran": "SUCCEED"}
        with pytest.raises(ValueError, match="was submitted before"):
            _job(executor, "ran", "true")
        (tmp_path / "go").touch()


def test_numbers_stand_where_a_name_was_used_again_only(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        _job(executor, "once", "true").result()
        for _ in range(2):
            _job(executor, "x", "true").result()
            executor.qcgpj_manager.remove("x")
    (report,) = tmp_path.glob(".qcgpjm-service-*/jobs.report")
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(line["name"], line.get("submission")) for line in lines] == [("once", None), ("x", None), ("x", 2)]


def test_what_was_removed_is_not_there_again(tmp_path, wait_until):
    executor = QCGPJExecutor(wd=tmp_path, resources=2)
    _job(executor, "gone", "true").result(20)
    needed = _job(executor, "needed", "true")
    needed.result(20)
    waiting = executor.submit(BasicTemplate, name="waits", exec="sleep", args=["1000"], after=[needed])
    wait_until(lambda: waiting.status() == {"waits": "EXECUTING"})
    executor.qcgpj_manager.remove(["gone", "needed"])
    _interrupted_with(executor)
    with QCGPJExecutor(resume=tmp_path, resources=2) as resumed:
        with pytest.raises(JobUnknown):
            resumed.attach("gone")
        again = _job(resumed, "gone", "false")
        assert again.result(20) == {"gone": "FAILED"}
        assert resumed.attach("waits").cancel()
    (run,) = tmp_path.glob(".qcgpjm-service-*")
    report = [json.loads(line) for line in (run / "jobs.report").read_text().splitlines()]
    assert [(job["state"], job.get("submission", 1)) for job in report if job["name"] == "gone"] == [
        ("SUCCEED", 1),
        ("FAILED", 2),
    ]
