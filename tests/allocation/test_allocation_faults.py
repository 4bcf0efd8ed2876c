"""What goes wrong around allocations that an executor gets by itself, on psij's local executor."""

import importlib.util
import json
import threading
import time
from pathlib import Path

import processes
import psutil
import pytest
from qcg.pilotjob.api.errors import TimeoutElapsed

from qcg.pilotjob.executor_api import (
    Allocation,
    AllocationEnded,
    AllocationFailed,
    BasicTemplate,
    IterationTemplate,
    QCGPJExecutor,
    ScriptTemplate,
)
from qcg.pilotjob.executor_api._allocation import several
from qcg.pilotjob.executor_api._client import remote_dispatcher
from qcg.pilotjob.executor_api._client.remote_dispatcher import AllocationDispatcher
from qcg.pilotjob.executor_api._shared import protocol

pytestmark = pytest.mark.skipif(importlib.util.find_spec("psij") is None, reason="psij-python is not installed")

_OPENED = "until [ -e gate ]; do sleep 0.05; done"
_LIVES = ("STARTING", "RUNNING")


@pytest.fixture
def make(tmp_path):
    """Make executors with an allocation of this machine; no process of one is left after the test."""
    made = []

    def make(**options):
        allocation = Allocation(**{"scheduler": "local", "cores_per_node": 1, "poll": 1.0, **options})
        executor = QCGPJExecutor(wd=tmp_path / "wd", allocation=allocation)
        made.append(executor)
        return executor

    yield make
    (tmp_path / "wd" / "gate").touch()
    for executor in made:
        executor.__exit__(KeyboardInterrupt, None, None)
    processes.assert_none_left(tmp_path)


def _run_of(executor):
    return Path(executor._connection.dispatcher.link.process.directories.aux)


def _end_manager(executor):
    psutil.Process(json.loads((_run_of(executor) / "manager.json").read_text())["pid"]).terminate()


def _in_the_way(then):
    """Return a setup that keeps the guard from reading what the pilot says."""
    return f"for run in .qcgpjm-service-*; do mkdir $run/pilot.1.jsonl; done; {then}"


def test_a_file_that_cannot_be_read_for_a_moment_ends_nothing(make):
    executor = make(setup=_in_the_way("sleep 1; rmdir $run/pilot.1.jsonl"))
    assert executor.submit(BasicTemplate, name="a", exec="true").result(60) == {"a": "SUCCEED"}


def test_a_file_that_can_never_be_read_costs_no_allocation(make, tmp_path):
    executor = make(setup=_in_the_way("exec sleep 1000"), start_timeout=5.0)
    future = executor.submit(BasicTemplate, name="a", exec="true")
    with pytest.raises(AllocationFailed, match="start_timeout"):
        future.result(60)
    processes.assert_none_left(tmp_path)


def test_whatever_ends_the_guard_is_told(make, wait_until):
    executor = make(renew=1)
    executor.submit(BasicTemplate, name="a", exec="true").result(60)
    (_run_of(executor) / "pilot.2.json").mkdir()
    _end_manager(executor)
    wait_until(lambda: executor.allocations[0].state == "LAPSED")
    with pytest.raises(AllocationEnded, match=r"failed \(IsADirectoryError"):
        executor.submit(BasicTemplate, name="b", exec="true").result(60)


def test_a_question_that_waits_for_a_manager_costs_no_cpu(make, monkeypatch, tmp_path, wait_until):
    rounds, answer = [], remote_dispatcher.answer

    def counted(*arguments):
        rounds.append(1)
        answer(*arguments)

    monkeypatch.setattr(remote_dispatcher, "answer", counted)
    executor = make(setup=_OPENED)
    question = executor._connection.dispatcher.ask(protocol.request("resourcesInfo"))
    wait_until(lambda: rounds)
    before = len(rounds)
    with pytest.raises(TimeoutError):
        question.reply.result(1.0)
    assert len(rounds) - before < 200
    (tmp_path / "wd" / "gate").touch()
    assert question.reply.result(60)["code"] == 0


def test_a_wait_for_a_job_keeps_its_timeout_while_there_is_no_manager(make, tmp_path):
    executor = make(setup=_OPENED)
    job = executor.submit(BasicTemplate, name="a", exec="true")
    for _ in range(2):  # the second one asks for nothing that was submitted since
        with pytest.raises(TimeoutElapsed):
            executor.qcgpj_manager.wait4("a", timeout=0.2)
    (tmp_path / "wd" / "gate").touch()
    assert executor.qcgpj_manager.wait4("a", timeout=60) == job.result(60) == {"a": "SUCCEED"}


class _EndsAtOnce(AllocationDispatcher):
    """A dispatcher that has started when its allocation has ended, or its pilot runs."""

    def start(self):
        super().start()
        link = self.link
        (Path(link.guard.directories.aux).parent / "gate").touch()
        end = time.monotonic() + 60
        while self._inbox._broken is None and link.guard.status.state not in _LIVES and time.monotonic() < end:
            if link.guard.status.state == "ENDED":  # its thread tells that to its owner now, which is not made yet
                end = min(end, time.monotonic() + 1.0)
            threading.Event().wait(0.01)
        return self


def test_an_allocation_that_ends_while_the_next_is_connected_breaks_nothing_else(make, monkeypatch):
    monkeypatch.setattr(several, "AllocationDispatcher", _EndsAtOnce)
    executor = make(count=2, setup=f"{_OPENED}; if mkdir first; then exit 1; fi")
    assert executor.submit(BasicTemplate, name="a", exec="true").result(60) == {"a": "SUCCEED"}


def test_when_all_allocations_end_at_the_start_nothing_waits(make, monkeypatch, wait_until):
    monkeypatch.setattr(several, "AllocationDispatcher", _EndsAtOnce)
    executor = make(count=2, setup=f"{_OPENED}; exit 1")
    wait_until(lambda: executor._connection.dispatcher.has_ended)
    with pytest.raises(AllocationFailed):
        executor.submit(BasicTemplate, name="a", exec="true")


def test_what_is_detached_between_two_allocations_is_not_lost(make, wait_until):
    executor = make(renew=1, idle=3.0)
    executor.submit(BasicTemplate, name="a", exec="true").result(60)
    _end_manager(executor)
    wait_until(lambda: executor.allocations[0].state == "LAPSED")
    executor.submit(BasicTemplate, name="late", exec="true")
    handle = executor.detach()
    with QCGPJExecutor(manager=handle) as follower:
        assert follower.attach("late").result(60) == {"late": "SUCCEED"}


def test_a_job_is_cancelled_at_once_while_the_next_allocation_waits(make, tmp_path, wait_until):
    """What an allocation has left is no longer there to be ended, and must not run in the next one."""
    gate = tmp_path / "wd" / "gate"
    executor = make(renew=1, setup=_OPENED)
    gate.touch()
    script = f"echo x >> {tmp_path}/ran.$QCG_PM_EXEC_API_JOB_ID; sleep 1000"
    lost = executor.submit(ScriptTemplate, name="lost", script=script)
    array = executor.submit(IterationTemplate, name="array", exec="sleep", args=["1000"], stop=3)
    after = executor.submit(BasicTemplate, name="after", exec="true", after=[lost])
    other = executor.submit(BasicTemplate, name="other", exec="true")
    wait_until((tmp_path / "ran.lost").exists)
    gate.unlink()
    _end_manager(executor)
    wait_until(lambda: executor._connection.dispatcher.link.guard.manager is None)
    before = time.monotonic()
    assert lost.cancel()
    assert array.cancel()
    assert time.monotonic() - before < 30  # an answer of the next manager would take until the gate is open
    assert lost.cancelled()
    assert not other.done()
    gate.touch()
    assert other.result(60) == {"other": "SUCCEED"}
    assert after.result(60) == {"after": "OMITTED"}
    assert (tmp_path / "ran.lost").read_text() == "x\n"
    executor.shutdown()
    states = {row["name"]: row["state"] for row in executor.record()}
    assert states.pop("lost") == "CANCELED"
    assert {state for name, state in states.items() if name.startswith("array")} == {"CANCELED"}
