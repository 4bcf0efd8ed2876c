"""A second client follows the jobs of a running manager by name."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import CancelledError, wait

import psutil
import pytest

from qcg.pilotjob.executor_api import (
    BasicTemplate,
    ExecutorClosed,
    InvalidOption,
    IterationTemplate,
    JobFailed,
    JobUnknown,
    ManagerDied,
    ParallelTemplate,
    QCGPJExecutor,
    ScriptTemplate,
)
from qcg.pilotjob.executor_api._client.links import OthersProcess

UNTIL_GO = "touch begun; until [ -e go ]; do sleep 0.01; done"


@pytest.fixture
def second(executor, tmp_path):
    """A second executor, connected to the manager of the first."""
    made = QCGPJExecutor(manager=tmp_path)
    yield made
    made.__exit__(KeyboardInterrupt, None, None)


def test_jobs_are_followed_by_name(executor, second, tmp_path, wait_until):
    executor.submit(BasicTemplate, name="ended", exec="true").result(20)
    own = executor.submit(ScriptTemplate, name="a", script=UNTIL_GO)
    wait_until((tmp_path / "begun").exists)
    ended, followed = second.attach("ended"), second.attach("a")
    assert ended.result(0) == {"ended": "SUCCEED"}
    assert not followed.done()
    assert followed.status() == {"a": "EXECUTING"}
    assert followed.info()["a"]["runtime"]["wd"] == str(tmp_path)
    called = []
    followed.add_done_callback(called.append)
    (tmp_path / "go").touch()
    assert followed.result(20) == {"a": "SUCCEED"} == own.result(20)
    wait_until(lambda: called == [followed])


def test_several_jobs_make_one_future(executor, second):
    executor.submit(IterationTemplate, name="array", exec="false", stop=3)
    bad = executor.submit(ScriptTemplate, name="bad", script="echo so it is >&2; exit 3")
    assert bad.status()  # so it has arrived
    future = second.attach("array", "bad")
    assert future.ids == ["array", "bad"]
    assert future.result(20) == {"array": "FAILED", "bad": "FAILED"}
    assert [one.exit_code for one in future.iterations()["array"]] == [1, 1, 1]
    with pytest.raises(JobFailed, match="so it is"):
        second.attach("bad").raise_for_status(20)


def test_a_second_client_submits_and_cancels_too(executor, second, tmp_path, wait_until):
    executor.submit(ScriptTemplate, name="long", script=UNTIL_GO)
    wait_until((tmp_path / "begun").exists)
    after = second.submit(BasicTemplate, name="mine", exec="true")
    assert after.result(20) == executor.attach("mine").result(0) == {"mine": "SUCCEED"}
    followed = second.attach("long")
    assert followed.cancel()
    with pytest.raises(CancelledError):
        executor.attach("long").result(20)


def test_an_executor_attaches_to_its_own_jobs(executor, tmp_path, wait_until):
    first = executor.submit(ScriptTemplate, name="a", script=UNTIL_GO)
    again = [executor.attach("a") for _ in range(3)]
    (tmp_path / "go").touch()
    assert [future.result(20) for future in [first, *again]] == [{"a": "SUCCEED"}] * 4


def test_attach_in_a_callback(executor, wait_until):
    attached = []
    executor.submit(BasicTemplate, name="b", exec="true")
    first = executor.submit(BasicTemplate, name="a", exec="true")
    first.add_done_callback(lambda _: attached.extend([executor.attach("b"), executor.attach("nobody")]))
    wait_until(lambda: len(attached) == 2)
    wait(attached, 20)
    assert attached[0].result(0) == {"b": "SUCCEED"}
    assert isinstance(attached[1].exception(0), JobUnknown)


def test_what_cannot_be_attached_to(executor):
    with pytest.raises(JobUnknown, match="nobody"):
        executor.attach("nobody")
    with pytest.raises(JobUnknown, match="'a:3' is an iteration"):
        executor.attach("a:3")
    for wrong in ((), (3,), ("",), (["a"],)):
        with pytest.raises(TypeError, match="attach"):
            executor.attach(*wrong)
    executor.shutdown()
    with pytest.raises(ExecutorClosed):
        executor.attach("a")


def test_leaving_the_second_client_waits_and_stops_nothing(executor, tmp_path, wait_until):
    executor.submit(ScriptTemplate, name="a", script=UNTIL_GO)
    wait_until((tmp_path / "begun").exists)
    with QCGPJExecutor(manager=str(tmp_path)) as second:
        followed = second.attach("a")
        (tmp_path / "go").touch()
    assert followed.result(0) == {"a": "SUCCEED"}
    assert executor.submit(BasicTemplate, name="b", exec="true").result(20) == {"b": "SUCCEED"}


def test_an_interrupted_second_client_lets_the_jobs_of_others_go_on(executor, tmp_path, wait_until):
    own = executor.submit(ScriptTemplate, name="a", script=UNTIL_GO)
    wait_until((tmp_path / "begun").exists)
    with pytest.raises(KeyboardInterrupt), QCGPJExecutor(manager=tmp_path) as second:  # noqa: PT012
        followed = second.attach("a")
        mine = second.submit(BasicTemplate, name="mine", exec="sleep", args=[1000])
        raise KeyboardInterrupt
    assert mine.cancelled()
    with pytest.raises(ExecutorClosed, match="the job goes on"):
        followed.result(0)
    assert own.status() == {"a": "EXECUTING"}
    (tmp_path / "go").touch()
    assert own.result(20) == {"a": "SUCCEED"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_managers_death_is_news_to_the_second_client_too(executor, second, tmp_path, wait_until, number):
    executor.submit(BasicTemplate, name="ended", exec="true").result(20)
    executor.submit(ScriptTemplate, name="a", script=UNTIL_GO)
    wait_until((tmp_path / "begun").exists)
    followed = second.attach("a")
    began = time.monotonic()
    psutil.Process(executor._connection.dispatcher.link.process.pid).send_signal(number)
    with pytest.raises(ManagerDied, match=r"is lost\n  log: .*service\.log\n(.|\n)*resume="):
        followed.result(20)
    assert time.monotonic() - began < 15
    with pytest.raises(ManagerDied):
        second.attach("a")
    wait_until(lambda: executor._connection.dispatcher.has_ended)
    with pytest.raises(ManagerDied, match="resume="):
        QCGPJExecutor(manager=tmp_path)


def test_the_first_clients_death_is_no_cancel_for_the_second(tmp_path, wait_until):
    source = f"""
        from qcg.pilotjob.executor_api import *
        with QCGPJExecutor(resources=1) as executor:
            executor.submit(ScriptTemplate, name="runs", script={UNTIL_GO!r})
            executor.submit(BasicTemplate, name="waits", exec="true").result()
    """
    first = subprocess.Popen([sys.executable, "-c", textwrap.dedent(source)], cwd=tmp_path)
    try:
        wait_until((tmp_path / "begun").exists)
        with QCGPJExecutor(manager=tmp_path) as second:
            futures = [second.attach("runs"), second.submit(BasicTemplate, name="own", exec="true")]
            assert futures[1].status() == {"own": "QUEUED"}
            first.kill()
            for future in futures:
                assert isinstance(future.exception(20), ManagerDied)
    finally:
        first.kill()
        first.wait()


def test_a_manager_that_ends_before_the_second_client_has_connected(executor, tmp_path, monkeypatch):
    executor.submit(BasicTemplate, name="a", exec="true").result(20)
    submitted = threading.Event()

    def channel_too_late(link, alarm, channel=OthersProcess.channel):
        executor.shutdown()  # it does not wait in the thread of a dispatcher
        assert executor._connection.dispatcher.join(20)
        submitted.wait(20)  # once the loss is noticed, submit() itself raises
        return channel(link, alarm)

    monkeypatch.setattr(OthersProcess, "channel", channel_too_late)
    with QCGPJExecutor(manager=tmp_path) as second:
        future = second.submit(BasicTemplate, name="b", exec="true")
        submitted.set()
        with pytest.raises(ManagerDied, match="lost"):
            second.attach("a")
        with pytest.raises(ManagerDied, match="lost"):
            future.result(20)


def test_the_first_client_leaves_while_the_second_follows(tmp_path, wait_until):
    with QCGPJExecutor(wd=tmp_path, resources=1) as first:
        first.submit(ScriptTemplate, name="a", script=UNTIL_GO)
        wait_until((tmp_path / "begun").exists)
        second = QCGPJExecutor(manager=tmp_path)
        followed = second.attach("a")
        (tmp_path / "go").touch()
    assert followed.result(20) == {"a": "SUCCEED"}
    second.shutdown()
    with pytest.raises(ManagerDied, match="has ended; resume="):
        QCGPJExecutor(manager=tmp_path)


@pytest.fixture
def waiting(executor, tmp_path, wait_until):
    """Futures of a job that runs on all cores, and of one that waits behind it, both of the first executor."""
    runs = executor.submit(ParallelTemplate, name="runs", exec="sh", args=["-c", UNTIL_GO], cores=4)
    wait_until((tmp_path / "begun").exists)
    waits = executor.submit(BasicTemplate, name="waits", exec="true")
    assert waits.status() == {"waits": "QUEUED"}
    return runs, waits


def test_a_second_client_that_cancels_what_has_not_started_cancels_its_own_jobs(executor, second, tmp_path, waiting):
    runs, waits = waiting
    own, twice = second.submit(BasicTemplate, name="own", exec="true"), second.attach("own")
    followed = [second.attach(*names) for names in (["runs"], ["waits"], ["runs", "waits"])]
    second.shutdown(wait=False, cancel_futures=True)
    for future in followed[1:]:
        with pytest.raises(ExecutorClosed, match="the job goes on"):
            future.result(20)
    for future in (own, twice, executor.attach("own")):
        with pytest.raises(CancelledError):
            future.result(20)
    assert not runs.done()
    assert not followed[0].done()
    (tmp_path / "go").touch()
    assert [future.result(20) for future in (runs, followed[0], waits)] == [
        {"runs": "SUCCEED"}, {"runs": "SUCCEED"}, {"waits": "SUCCEED"},
    ]  # fmt: skip


def test_a_signal_of_a_second_client_cancels_its_own_jobs(executor, tmp_path, waiting, wait_until):
    with QCGPJExecutor(manager=tmp_path, stop_on=signal.SIGUSR1) as second:
        own, followed = second.submit(BasicTemplate, name="own", exec="true"), second.attach("waits")
        assert own.status() == {"own": "QUEUED"}
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_until(own.done)
        assert own.cancelled()
        with pytest.raises(ExecutorClosed, match="the job goes on"):
            followed.result(20)
    (tmp_path / "go").touch()
    assert waiting[1].result(20) == {"waits": "SUCCEED"}


def test_a_directory_without_a_manager(tmp_path):
    with pytest.raises(InvalidOption, match=r"manager is .*has none in it"):
        QCGPJExecutor(manager=tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_attach(executor, tmp_path):
    (run,) = tmp_path.glob(".qcgpjm-service-*")
    # what is imported before can be used by the other user, who may not read this directory
    program = f"""
import os
from qcg.pilotjob.executor_api._client.links import link_to_directory
os.setuid(65534)
link_to_directory({str(run)!r})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd="/")
    assert "InvalidOption" in done.stderr
    assert "belongs to root" in done.stderr
