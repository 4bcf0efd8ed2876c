"""Allocations that an executor gets by itself, on psij's local executor; tests/slurm does it on a Slurm."""

import contextlib
import importlib.util
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from pathlib import Path

import processes
import psutil
import pytest
import zmq
from proxy import Proxy

from qcg.pilotjob.executor_api import (
    Allocation,
    AllocationEnded,
    AllocationFailed,
    BasicTemplate,
    ExecutorClosed,
    InvalidOption,
    IterationTemplate,
    JobTimeout,
    JobUnknown,
    ManagerDied,
    ParallelTemplate,
    QCGPJExecutor,
    ScriptTemplate,
    WorkerDied,
)
from qcg.pilotjob.executor_api._allocation.own_allocation import GuardProcess
from qcg.pilotjob.executor_api._allocation.refusals import in_our_words
from qcg.pilotjob.executor_api._client import remote_channel
from qcg.pilotjob.executor_api._client.inbox import Inbox
from qcg.pilotjob.executor_api._client.remote_channel import OthersPeer
from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api._shared.run_files import HANDOVER, KEYS, PRESENCE

pytestmark = pytest.mark.skipif(importlib.util.find_spec("psij") is None, reason="psij-python is not installed")


def _local(**options):
    return Allocation(**{"scheduler": "local", "cores_per_node": 2, "poll": 1.0, **options})


def _run_one(make, **options):
    """Run a job; that its allocation fails may be known at any moment, from its first on."""
    make(allocation=options).submit(BasicTemplate, name="a", exec="true").result(90)


def _run_of(executor):
    return Path(executor._connection.dispatcher.link.process.directories.aux)


def _manager_of(executor):
    return psutil.Process(json.loads((_run_of(executor) / "manager.json").read_text())["pid"])


@pytest.fixture
def make(tmp_path):
    """Make executors with an allocation of two cores of this machine; none is left after the test."""
    made = []

    def make(**options):
        allocation = _local(**options.pop("allocation", {}))
        executor = QCGPJExecutor(wd=tmp_path / "wd", allocation=allocation, **options)
        made.append(executor)
        return executor

    yield make
    for executor in made:
        executor.__exit__(KeyboardInterrupt, None, None)
    processes.assert_none_left(tmp_path)


def _has_text(path):
    return path.exists() and path.read_text() != ""


@pytest.fixture
def proxy():
    """A network that can be disturbed."""
    made = Proxy()
    yield made
    made.close()


def test_a_program_elsewhere_gets_results_and_gives_all_back(make, wait_until):
    with make() as executor:
        (status,) = executor.allocations
        assert status.state in {"QUEUED", "STARTING", "RUNNING"}
        assert status.id
        futures = [executor.submit(BasicTemplate, name=f"n{n}", exec="true") for n in range(20)]
        assert [future.result(30) for future in futures] == [{f"n{n}": "SUCCEED"} for n in range(20)]
        (status,) = executor.allocations
        assert (status.state, status.nodes, status.cores) == ("RUNNING", 1, 2)
        assert status.until is not None
        assert executor.submit(BasicTemplate, name="bad", exec="false").result(30) == {"bad": "FAILED"}
        array = executor.submit(IterationTemplate, name="array", exec="true", stop=5)
        assert array.result(30) == {"array": "SUCCEED"}
        assert [iteration.state for iteration in array.iterations()["array"]] == ["SUCCEED"] * 5
        slow = executor.submit(BasicTemplate, name="slow", exec="sleep", args=["1000"])
        wait_until(lambda: slow.status() == {"slow": "EXECUTING"})
        assert slow.cancel()
        assert executor.qcgpj_manager.resources()["total_cores"] == 2
    (status,) = executor.allocations
    assert status.state in {"RUNNING", "ENDED"}
    assert futures[3].info()["n3"]["runtime"]["exit_code"] == "0"


def test_leaving_before_the_manager_is_there_takes_no_time(make):
    begin = time.monotonic()
    with make():
        pass
    assert time.monotonic() - begin < 25


def test_interruption_cancels_and_gives_back(make, wait_until):
    executor = make()
    future = executor.submit(BasicTemplate, name="slow", exec="sleep", args=["1000"])
    wait_until(lambda: future.status() == {"slow": "EXECUTING"})
    executor.__exit__(KeyboardInterrupt, None, None)
    assert future.cancelled()


def test_strangers_are_not_heard_and_keys_are_nowhere_to_be_seen(make, wait_until):
    executor = make()
    executor.submit(BasicTemplate, name="a", exec="true").result(30)
    run = _run_of(executor)
    keys = json.loads((run / "keys.json").read_text())
    assert (run / "keys.json").stat().st_mode & 0o777 == 0o600
    assert run.stat().st_mode & 0o777 == 0o700
    secrets = [keys["manager"]["secret"], keys["client"]["secret"]]
    for process in psutil.process_iter():
        seen = " ".join([*processes.words(process), *processes.environment(process).values()])
        assert not any(secret in seen for secret in secrets)
    port = json.loads((run / "manager.json").read_text())["remote"]["requests"]
    for knows_the_manager in (True, False):
        with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
            stranger.setsockopt(zmq.LINGER, 0)
            if knows_the_manager:
                stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
                stranger.curve_serverkey = keys["client"]["manager"].encode()
            stranger.connect(f"tcp://127.0.0.1:{port}")
            stranger.send_multipart([b"1", b"0", b'{"request": "finish"}'])
            assert not stranger.poll(1000)
    assert executor.submit(BasicTemplate, name="b", exec="true").result(30) == {"b": "SUCCEED"}


@pytest.fixture
def short_reach(monkeypatch):
    """A manager that cannot be reached is given up soon, however long its start may take."""
    monkeypatch.setattr(GuardProcess, "reach_seconds", property(lambda _: 2.0, lambda *_: None), raising=False)


@contextlib.contextmanager
def _talk_to(executor):
    """Connect to the manager as its client does, by a socket for requests."""
    keys = json.loads((_run_of(executor) / "keys.json").read_text())["client"]
    port = json.loads((_run_of(executor) / PRESENCE).read_text())["remote"]["requests"]
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.curve_publickey, client.curve_secretkey = keys["public"].encode(), keys["secret"].encode()
        client.curve_serverkey = keys["manager"].encode()
        client.connect(f"tcp://127.0.0.1:{port}")
        yield client


def test_whatever_the_client_sends_has_an_answer_and_the_manager_goes_on(make):
    with make() as executor:
        executor.submit(BasicTemplate, name="a", exec="true").result(60)
        messages = [b"{", b"\xff", b"null", b"[1]", b'{"request": "submit"}', b'{"request": 1}', b"[" * 100_000]
        with _talk_to(executor) as client:
            for turn, message in enumerate(messages):
                for again in (b"0", b"1"):
                    client.send_multipart([b"%d" % turn, again, message])
                    assert client.poll(20_000), f"no answer to {message[:80]!r}"
                    answered, text = client.recv_multipart()
                    assert answered == b"%d" % turn
                    assert json.loads(text)["code"] != 0
            for frames in ([b""], [b"1", b"0"], [b"1", b"0", b"{}", b"more"]):  # to these there can be none
                client.send_multipart(frames)
            client.send_multipart([b"last", b"0", b'{"request": "status"}'])
            assert client.poll(20_000)
            assert client.recv_multipart()[0] == b"last"
        assert executor.submit(BasicTemplate, name="b", exec="true").result(20) == {"b": "SUCCEED"}


@pytest.mark.parametrize("content", [b"{", b"1", b"[1]", b'[[{"name": 1}]]', b"\xff"])
def test_a_handover_that_cannot_be_read_does_not_end_the_manager(make, wait_until, content):
    with make() as executor:
        executor.submit(BasicTemplate, name="a", exec="true").result(60)
        (_run_of(executor) / HANDOVER).write_bytes(content)
        log = _run_of(executor) / "service.log"
        wait_until(lambda: "cannot be taken over" in log.read_text() or "are refused" in log.read_text())
        assert executor.submit(BasicTemplate, name="b", exec="true").result(20) == {"b": "SUCCEED"}


@pytest.mark.usefixtures("short_reach")
def test_no_other_manager_is_believed(make):
    """Somebody who listens in the manager's place, with another key, gets nothing and is not believed."""
    keys = zmq.curve_keypair()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as impostor:
        impostor.setsockopt(zmq.LINGER, 0)
        impostor.curve_publickey, impostor.curve_secretkey, impostor.curve_server = *keys, True
        port = impostor.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(AllocationFailed, match="tunnel="):
            _run_one(make, tunnel=lambda *_: ("127.0.0.1", port))
        assert not impostor.poll(0)


@pytest.mark.parametrize("fault", ["cut", "hold", "delay", "cut often"])
def test_no_job_is_lost_when_the_network_is_disturbed(make, proxy, tmp_path, fault, wait_until):
    executor = make(allocation={"tunnel": proxy.through})
    futures = [executor.submit(BasicTemplate, name="first", exec="true")]
    futures[0].result(30)
    turns = 12 if fault == "cut often" else 3
    for turn in range(turns):
        script = f"echo x >> {tmp_path}/ran.$QCG_PM_EXEC_API_JOB_ID; sleep 0.05"
        futures += [executor.submit(ScriptTemplate, name=f"n{turn}.{n}", script=script) for n in range(10)]
        if fault.startswith("cut"):
            proxy.cut()
        elif fault == "hold":
            proxy.holds = True
            # what is sent now is answered late, and asked again meanwhile
            with contextlib.suppress(TimeoutError):
                futures[-1].exception(4.0)
            proxy.holds = False
        else:
            proxy.delay = 0.5
    states = [state for future in futures for state in future.result(60).values()]
    assert set(states) == {"SUCCEED"}
    assert {path.read_text() for path in tmp_path.glob("ran.*")} == {"x\n"}
    assert len(list(tmp_path.glob("ran.*"))) == 10 * turns


def test_a_network_that_is_gone_for_a_while_delays_only(make, proxy, wait_until):
    executor = make(allocation={"tunnel": proxy.through})
    executor.submit(BasicTemplate, name="a", exec="true").result(30)
    proxy.refuses = True
    proxy.cut()
    future = executor.submit(BasicTemplate, name="b", exec="true")
    with pytest.raises(TimeoutError):
        future.result(2)
    proxy.refuses = False
    assert future.result(30) == {"b": "SUCCEED"}


def test_without_renewal_the_end_of_the_allocation_is_told(make, wait_until):
    executor = make()
    done = executor.submit(BasicTemplate, name="done", exec="true")
    slow = executor.submit(BasicTemplate, name="slow", exec="sleep", args=["1000"])
    done.result(30)
    wait_until(lambda: slow.status() == {"slow": "EXECUTING"})
    _manager_of(executor).terminate()
    with pytest.raises(AllocationEnded, match=r"has ended.*it got SIGTERM(.|\n)*next: .*resume="):
        slow.result(30)
    assert done.result(0) == {"done": "SUCCEED"}
    with pytest.raises(AllocationEnded):
        executor.submit(BasicTemplate, name="late", exec="true")


@pytest.mark.parametrize("by", ["terminate", "kill"])
def test_a_renewed_allocation_goes_on_and_runs_again_what_was_lost(make, tmp_path, wait_until, by):
    executor = make(allocation={"renew": 2})
    script = f"echo x >> {tmp_path}/ran.$QCG_PM_EXEC_API_JOB_ID"
    done = [executor.submit(ScriptTemplate, name=f"done{n}", script=script) for n in range(10)]
    wait(done, 30)
    lost = executor.submit(
        ScriptTemplate, name="lost", script=f"{script}; [ $(wc -l < {tmp_path}/ran.lost) = 3 ] || sleep 1000"
    )
    queued = [executor.submit(ScriptTemplate, name=f"q{n}", script=script, after=[lost]) for n in range(10)]
    for turn in (1, 2):
        wait_until(
            lambda turn=turn: (tmp_path / "ran.lost").exists() and len((tmp_path / "ran.lost").read_text()) == 2 * turn
        )
        assert executor.allocations[0].number == turn
        getattr(_manager_of(executor), by)()
    assert lost.result(60) == {"lost": "SUCCEED"}
    assert {state for future in [*done, *queued] for state in future.result(60).values()} == {"SUCCEED"}
    counts = {path.suffix[1:]: len(path.read_text()) // 2 for path in tmp_path.glob("ran.*")}
    assert counts.pop("lost") == 3
    assert set(counts.values()) == {1}
    assert len(counts) == 20
    assert executor.allocations[0].number == 3


def test_what_was_lost_fails_when_it_is_not_to_run_again(make, tmp_path, wait_until):
    executor = make(allocation={"renew": 1, "rerun": False})
    lost = executor.submit(ScriptTemplate, name="lost", script=f"touch {tmp_path}/ran; sleep 1000")
    other = executor.submit(ScriptTemplate, name="other", script="true", after=[lost])
    later = [executor.submit(ParallelTemplate, name=f"n{n}", exec="true", nodes=1, cores=2) for n in range(3)]
    wait_until((tmp_path / "ran").exists)
    _manager_of(executor).kill()
    assert lost.result(60) == {"lost": "FAILED"}
    assert "rerun=False" in lost.info()["lost"]["messages"]
    assert other.result(60) == {"other": "OMITTED"}
    assert {state for future in later for state in future.result(60).values()} == {"SUCCEED"}


def test_what_is_not_to_run_again_is_on_record_before_it_starts(make, tmp_path, wait_until):
    """A manager that has stood still, and was killed then, had no part in what started meanwhile."""
    executor = make(allocation={"renew": 1, "rerun": False, "cores_per_node": 1})
    short = [executor.submit(BasicTemplate, name=f"short{n}", exec="true") for n in range(5)]
    wait(short, 60)
    script = f"echo $$ >> {tmp_path}/ran.$QCG_PM_EXEC_API_JOB_ID; until [ -e {tmp_path}/go ]; do sleep 0.02; done"
    first, second = (executor.submit(ScriptTemplate, name=name, script=script) for name in ("first", "second"))
    wait_until(lambda: first.status() == {"first": "EXECUTING"} and _has_text(tmp_path / "ran.first"))
    assert second.status() == {"second": "QUEUED"}
    manager = _manager_of(executor)
    manager.suspend()
    wait_until(lambda: manager.status() == psutil.STATUS_STOPPED)
    (tmp_path / "go").touch()
    wait_until(lambda: processes.gone(int((tmp_path / "ran.first").read_text())))
    end = time.monotonic() + 0.5
    while not _has_text(tmp_path / "ran.second") and time.monotonic() < end:
        time.sleep(0.01)
    manager.kill()
    assert first.result(60) == {"first": "FAILED"}
    assert second.result(60) == {"second": "SUCCEED"}
    assert len((tmp_path / "ran.second").read_text().split()) == 1


def test_an_idle_executor_asks_for_no_other_allocation(make, wait_until):
    executor = make(allocation={"renew": 1})
    executor.submit(BasicTemplate, name="a", exec="true").result(30)
    _manager_of(executor).terminate()
    wait_until(lambda: executor.allocations[0].state == "LAPSED")
    look = executor._connection.dispatcher.glance(protocol.request("status"))  # as a bar does
    assert isinstance(look.reply.exception(30), ManagerDied)
    assert executor.allocations[0].state == "LAPSED"
    assert executor.allocations[0].number == 1
    assert executor.submit(BasicTemplate, name="b", exec="true").result(30) == {"b": "SUCCEED"}
    assert executor.allocations[0].number == 2


def test_a_detached_run_is_followed_by_another_program(make, tmp_path, run_script, wait_until):
    executor = make(allocation={"idle": 10.0})
    done = executor.submit(BasicTemplate, name="done", exec="true")
    done.result(30)
    gate = tmp_path / "gate"
    waits = executor.submit(ScriptTemplate, name="waits", script=f"while [ ! -e {gate} ]; do sleep 0.05; done; echo hi")
    executor.submit(ScriptTemplate, name="after", script="true", after=[waits])
    handle = executor.detach()
    assert executor.allocations[0].state == "DETACHED"
    with pytest.raises(ExecutorClosed, match="manager="):
        waits.result(0)
    with pytest.raises(ExecutorClosed):
        executor.submit(BasicTemplate, name="no", exec="true")
    source = f"""
        from qcg.pilotjob.executor_api import QCGPJExecutor
        with QCGPJExecutor(manager={handle!r}) as executor:
            print(executor.attach("done").result(30), executor.attach("waits").status())
            open({str(gate)!r}, "w").close()
            print(executor.attach("waits", "after").result(30))
    """
    printed = run_script(source).stdout.split("\n")
    assert printed[0].startswith("{'done': 'SUCCEED'} {'waits': '")
    assert printed[1] == "{'waits': 'SUCCEED', 'after': 'SUCCEED'}"
    processes.assert_none_left(tmp_path)  # it gives the allocation back when nothing is left to do
    with QCGPJExecutor(manager=handle) as later:  # the next day
        assert later.attach("waits", "after").result(10) == {"waits": "SUCCEED", "after": "SUCCEED"}
        with pytest.raises(JobUnknown, match="resume="):
            later.attach("unheard-of")


def test_a_manager_that_is_killed_with_its_node_is_missed_by_who_follows_it(make, monkeypatch, wait_until):
    executor = make()
    executor.submit(BasicTemplate, name="done", exec="true").result(30)
    lost = executor.submit(ScriptTemplate, name="lost", script="sleep 1000")
    wait_until(lambda: lost.status() == {"lost": "EXECUTING"})
    manager = _manager_of(executor)
    handle = executor.detach()
    monkeypatch.setattr(OthersPeer, "patience", 5.0)
    monkeypatch.setattr(remote_channel, "_PING_SECONDS", 0.2)
    with QCGPJExecutor(manager=handle) as follower:
        followed = follower.attach("lost")
        with pytest.raises(JobTimeout):
            followed.result(1.5)
        for process in (manager.parent(), manager):  # so nobody is left to say that it has ended
            process.kill()
        with pytest.raises(ManagerDied, match="nothing has been heard"):
            followed.result(60)


def test_who_stood_still_does_not_take_the_manager_for_dead(make, monkeypatch, tmp_path, wait_until):
    """As after Ctrl-Z: its clock has gone on, and what the manager has said meanwhile is not read yet."""
    executor = make()
    script = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    slow = executor.submit(ScriptTemplate, name="slow", script=script)
    wait_until(lambda: slow.status() == {"slow": "EXECUTING"})
    manager = _manager_of(executor)
    handle = executor.detach()
    clock = _Clock()
    monkeypatch.setattr(remote_channel, "time", clock)
    monkeypatch.setattr(remote_channel, "_LOOK_SECONDS", 0.05)
    with QCGPJExecutor(manager=handle) as follower:
        followed = follower.attach("slow")
        clock.ahead += 10 * OthersPeer.patience
        asked = clock.asked
        wait_until(lambda: clock.asked > asked + 20 or followed.done())
        (tmp_path / "go").touch()
        assert followed.result(60) == {"slow": "SUCCEED"}
    manager.terminate()


class _Clock:
    def __init__(self):
        self.ahead, self.asked = 0.0, 0

    def monotonic(self):
        self.asked += 1
        return time.monotonic() + self.ahead


@pytest.fixture
def handed_over(tmp_path):
    """The directory of a run that waits for its manager."""
    (tmp_path / KEYS).write_text('{"client": {}}')
    (tmp_path / HANDOVER).write_text("[]")
    return tmp_path


def test_a_manager_that_came_and_went_between_two_looks_is_missed(handed_over):
    followed = OthersPeer(str(handed_over))
    followed.look()
    (handed_over / HANDOVER).unlink()
    with pytest.raises(ManagerDied, match="has ended"):
        followed.look()


def test_a_manager_that_comes_this_moment_has_not_ended(handed_over, monkeypatch):
    followed = OthersPeer(str(handed_over))
    exists = remote_channel.os.path.exists

    def exists_and_comes(path):
        found = exists(path)
        (handed_over / PRESENCE).touch()
        (handed_over / HANDOVER).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(remote_channel.os.path, "exists", exists_and_comes)
    assert not followed.has_ended


def test_what_is_detached_at_once_is_not_lost(make, tmp_path, wait_until):
    executor = make(allocation={"idle": 10.0})
    for number in range(5):
        executor.submit(ScriptTemplate, name=f"n{number}", script=f"echo x >> {tmp_path}/ran.{number}")
    handle = executor.detach()
    with QCGPJExecutor(manager=handle) as other:
        # the manager may not have found yet what was left for it
        wait_until(lambda: len(list(tmp_path.glob("ran.*"))) == 5)
        names = [f"n{number}" for number in range(5)]
        assert set(other.attach(*names).result(30).values()) == {"SUCCEED"}
    assert {path.read_text() for path in tmp_path.glob("ran.*")} == {"x\n"}
    processes.assert_none_left(tmp_path)


def test_only_what_was_detached_outlives_the_program(tmp_path, wait_until):
    source = """
from qcg.pilotjob.executor_api import *
executor = QCGPJExecutor(allocation=Allocation(scheduler="local", cores_per_node=1))
executor.submit(BasicTemplate, name="a", exec="sleep", args=["1000"]).result()
"""
    program = subprocess.Popen([sys.executable, "-c", source], cwd=tmp_path)
    wait_until(lambda: list(tmp_path.glob(".qcgpjm-service-*/manager.json")))
    program.send_signal(signal.SIGKILL)
    program.wait()
    processes.assert_none_left(tmp_path)


def test_a_manager_that_nobody_talks_to_ends(tmp_path, make, wait_until):
    executor = make(allocation={"silence": 8.0})
    future = executor.submit(BasicTemplate, name="a", exec="sleep", args=["1000"])
    wait_until(lambda: future.status() == {"a": "EXECUTING"})
    guard = psutil.Process(executor._connection.dispatcher.link.process.pid)
    manager = _manager_of(executor)
    job = [process for process in manager.children(recursive=True) if processes.name(process) == "sleep"]
    guard.suspend()  # and the dispatcher, which cannot be stopped alone, loses its keys
    executor._connection.dispatcher.link.guard.manager = None
    executor._connection.dispatcher._inbox.alarm.set()
    wait_until(lambda: not any(map(processes.lives, [manager, *job])), "the end of the manager", 60)
    guard.resume()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"scheduler": "slum"}, InvalidOption, "slurm.*local"),
        ({"nodes": 0}, InvalidOption, "nodes is 0"),
        ({"walltime": "soon"}, InvalidOption, "walltime.*1h30m"),
        ({"count": 0}, InvalidOption, "count"),
        ({"poll": -1}, InvalidOption, "poll"),
        ({"options": "qos=debug"}, InvalidOption, "give a dictionary"),
        ({"options": {"--qos": "debug"}}, InvalidOption, "'--qos'; write the scheduler and .* without '-'"),
        ({"options": {"slum.qos": "debug"}}, InvalidOption, "one of slurm, pbs, lsf"),
        ({"options": {3: "debug"}}, InvalidOption, "have 3"),
        ({"options": {"slurm.requeue": False}}, InvalidOption, "'slurm.requeue' is False; give .* True"),
        ({"options": {"slurm.gres": ["gpu:2"]}}, InvalidOption, "give text or a number"),
        ({"options": {"slurm.comment": 'a "b"'}}, InvalidOption, """with '"', which cannot be handed to slurm"""),
        ({"options": {"slurm.comment": "a\n#SBATCH -N9"}}, InvalidOption, r"with '\\n'"),
        ({"options": {"pbs.V": True}}, InvalidOption, "psij gives one to every option of pbs"),
        ({"options": {"lsf.R": "select[gpu]"}}, InvalidOption, "cannot be handed to lsf"),
        ({"nodes": 2}, InvalidOption, "count=2"),
        ({"cores_per_node": 1.5}, InvalidOption, "cores_per_node"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, options, error, match):
    with pytest.raises(error, match=match):
        make(allocation=options)


def test_a_directory_that_psij_cannot_quote_is_refused(tmp_path):
    with pytest.raises(InvalidOption, match="without blanks"):
        QCGPJExecutor(wd=tmp_path / "my study", allocation=_local())


def test_other_ways_to_a_manager_stand_beside_it(tmp_path):
    with pytest.raises(InvalidOption, match="cores_per_node="):
        QCGPJExecutor(wd=tmp_path, resources=2, allocation=_local())
    with pytest.raises(InvalidOption, match="manager="):
        QCGPJExecutor(manager=tmp_path, allocation=_local())
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor, pytest.raises(InvalidOption, match="allocation="):
        executor.detach()


@pytest.mark.parametrize(
    ("said", "argument"),
    [
        ("Batch job submission failed: Invalid account or account/partition combination specified", "account"),
        ("sbatch: error: invalid partition specified: nope", "queue"),
        ("qsub: Unknown queue", "queue"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "walltime"),
        ("Requested node configuration is not available", "nodes"),
        ("the moon is in the wrong house", "scheduler's words"),
    ],
)
def test_a_refusal_says_which_argument_to_look_at(said, argument):
    words = in_our_words(said, {"queue": "debug", "account": "project"})
    assert said in words
    assert argument in words.partition("next:")[2]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"python": "/nowhere/python"}, "python= to Allocation"),
        ({"python": "/usr/bin/python3"}, "cannot import this package.*setup="),
        ({"setup": "exit 3"}, "ended before the manager was ready"),
        ({"setup": "sleep 100", "start_timeout": 1.0}, r"start_timeout(.|\n)*share"),
    ],
)
def test_a_manager_that_does_not_start_says_why(make, options, match):
    with pytest.raises(AllocationFailed, match=match):
        _run_one(make, **options)


@pytest.mark.usefixtures("short_reach")
def test_a_port_that_is_blocked_is_named(make):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        with pytest.raises(AllocationFailed, match=rf"127\.0\.0\.1:{port}(.|\n)*tunnel="):
            _run_one(make, tunnel=lambda *_: ("127.0.0.1", port))


def test_a_run_that_was_interrupted_is_resumed_in_an_allocation(make, tmp_path, wait_until):
    executor = make()
    done = executor.submit(ScriptTemplate, name="done", script=f"echo x >> {tmp_path}/ran.done")
    done.result(30)
    executor.submit(
        ScriptTemplate, name="left", script=f"echo x >> {tmp_path}/ran.left; [ -e {tmp_path}/go ] || sleep 99"
    )
    wait_until(lambda: _has_text(tmp_path / "ran.left"))
    run = _run_of(executor)
    executor.__exit__(KeyboardInterrupt, None, None)
    (tmp_path / "go").touch()
    again = QCGPJExecutor(resume=run, allocation=_local())
    with again:
        assert again.attach("done", "left").result(30) == {"done": "SUCCEED", "left": "SUCCEED"}
    assert (tmp_path / "ran.done").read_text() == "x\n"


def test_functions_are_called_in_an_allocation(make):
    with make() as executor, executor.functions() as pool:
        assert list(pool.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]


def test_calls_whose_worker_was_lost_with_its_allocation_end(make, tmp_path, wait_until):
    executor = make(allocation={"renew": 2, "cores_per_node": 1})

    def call(turns):
        with (tmp_path / "begun").open("a") as file:
            file.write("x")
        if len((tmp_path / "begun").read_text()) < turns:
            time.sleep(1000)
        return "done"

    with executor.functions() as pool, executor.functions(retries=1) as again:
        lost = pool.submit(call, 2)
        wait_until(lambda: _has_text(tmp_path / "begun"))
        _manager_of(executor).kill()
        with pytest.raises(WorkerDied, match="allocation"):
            lost.result(30)
        pool.shutdown()
        (tmp_path / "begun").unlink()
        retried = again.submit(call, 2)
        wait_until(lambda: _has_text(tmp_path / "begun"))
        _manager_of(executor).kill()
        assert retried.result(60) == "done"


def test_psij_is_named_when_it_is_missing(run_script):
    completed = run_script(
        """
        import sys
        sys.modules["psij"] = None
        from qcg.pilotjob.executor_api import Allocation, QCGPJExecutor
        try:
            QCGPJExecutor(allocation=Allocation(scheduler="local"))
        except ImportError as error:
            print(error)
        """
    )
    assert "qcg-pilotjob-executor-api[allocations]" in completed.stdout


@pytest.fixture
def three(make):
    """An executor with three allocations of one core each."""
    return make(allocation={"count": 3, "cores_per_node": 1})


def _managers_of(executor):
    runs = [Path(dispatcher.link.process.directories.aux) for dispatcher in executor._connection.dispatchers]
    return [psutil.Process(json.loads((run / "manager.json").read_text())["pid"]) for run in runs]


def test_jobs_are_spread_over_several_allocations(three, tmp_path, wait_until):
    go = tmp_path / "go"
    script = (
        f"echo $PPID >> {tmp_path}/ran.$QCG_PM_EXEC_API_JOB_ID; until [ -e {go} ]; do sleep 0.05; done; "
        "sleep 0.3; echo $QCG_PM_ZMQ_ADDRESS"
    )
    with three as executor:
        assert len(executor.allocations) == 3
        wait_until(lambda: {status.state for status in executor.allocations} == {"RUNNING"})
        futures = [
            executor.submit(ScriptTemplate, name=f"n{n}", script=script, stdout=f"{tmp_path}/out.{n}")
            for n in range(30)
        ]
        waiting = futures[-1]
        assert waiting.status() == {"n29": "QUEUED"}
        assert waiting.info()["n29"]["status"] == "QUEUED"
        assert waiting.cancel()
        go.touch()
        assert {state for future in futures[:-1] for state in future.result(60).values()} == {"SUCCEED"}
        assert futures[0].info()["n0"]["runtime"]["exit_code"] == "0"
    addresses = [(tmp_path / f"out.{n}").read_text() for n in range(29)]
    assert len(set(addresses)) == 3
    assert min(addresses.count(address) for address in set(addresses)) >= 5
    assert {len(path.read_text().split()) for path in tmp_path.glob("ran.*")} == {1}


def test_dependencies_hold_between_allocations(three, tmp_path):
    note = f"echo $QCG_PM_EXEC_API_JOB_ID >> {tmp_path}/order"
    with three as executor:
        first = [
            executor.submit(ScriptTemplate, name=f"a{n}", script=f"sleep 0.0{n}; {note}", wd=str(tmp_path))
            for n in range(9)
        ]
        joined = executor.submit(ScriptTemplate, name="join", script=note, after=first)
        last = executor.submit(ScriptTemplate, name="last", script=note, after=[joined])
        bad = executor.submit(ScriptTemplate, name="bad", script="sleep 0.1; false")
        omitted = executor.submit(ScriptTemplate, name="omitted", script=note, after=[bad, first[0]])
        chained = executor.submit(ScriptTemplate, name="chained", script=note, after=[omitted])
        assert last.result(60) == {"last": "SUCCEED"}
        assert omitted.result(60) == {"omitted": "OMITTED"}
        assert chained.result(60) == {"chained": "OMITTED"}
        late = executor.submit(ScriptTemplate, name="late", script=note, after=[*first, last])
        assert late.result(60) == {"late": "SUCCEED"}
    order = (tmp_path / "order").read_text().split()
    assert sorted(order[:9]) == [f"a{n}" for n in range(9)]
    assert order[9:] == ["join", "last", "late"]


def test_the_others_take_over_the_jobs_of_an_allocation_that_ends(three, tmp_path, wait_until):
    executor = three
    wait_until(lambda: {status.state for status in executor.allocations} == {"RUNNING"})
    script = f"echo x >> {tmp_path}/ran.$QCG_PM_EXEC_API_JOB_ID; sleep 0.1"
    futures = [executor.submit(ScriptTemplate, name=f"n{n}", script=script) for n in range(40)]
    wait(futures[:3], 30)
    managers = _managers_of(executor)
    ended = [future.ids[0] for future in futures if future.done()]
    for manager in managers[:2]:
        manager.kill()
    assert {state for future in futures for state in future.result(60).values()} == {"SUCCEED"}
    counts = {path.name.partition(".")[2]: len(path.read_text().split()) for path in tmp_path.glob("ran.*")}
    assert len(counts) == 40
    assert {counts[name] for name in ended} == {1}  # what was not known to have ended may have run again
    lost = executor.submit(ScriptTemplate, name="lost", script="sleep 1000")
    managers[2].kill()
    with pytest.raises(AllocationEnded):
        lost.result(30)


def test_what_was_not_to_run_again_fails_where_several_allocations_are(make, tmp_path, wait_until):
    executor = make(allocation={"count": 2, "cores_per_node": 1, "rerun": False})
    wait_until(lambda: {status.state for status in executor.allocations} == {"RUNNING"})
    script = f"echo x >> {tmp_path}/ran.$QCG_PM_EXEC_API_JOB_ID; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    futures = [executor.submit(ScriptTemplate, name=f"n{n}", script=script) for n in range(8)]
    wait_until(lambda: len(list(tmp_path.glob("ran.*"))) == 2)
    _managers_of(executor)[0].kill()
    (tmp_path / "go").touch()
    wait(futures, 60)
    broken = [future for future in futures if future.exception() is not None]
    assert len(broken) == 1
    assert isinstance(broken[0].exception(), AllocationEnded)
    assert {len(path.read_text().split()) for path in tmp_path.glob("ran.*")} == {1}


def test_what_waits_for_its_allocation_can_be_asked_for_and_cancelled(make, tmp_path):
    executor = make(allocation={"setup": f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"})
    futures = [executor.submit(BasicTemplate, name=f"n{n}", exec="true") for n in range(3)]
    assert futures[0].status() == {"n0": "QUEUED"}
    assert futures[0].info()["n0"]["status"] == "QUEUED"
    assert not futures[0].done()
    assert futures[1].cancel()
    assert futures[1].status() == {"n1": "CANCELED"}
    assert executor.allocations[0].state in {"QUEUED", "STARTING"}
    (tmp_path / "go").touch()
    assert futures[2].result(30) == {"n2": "SUCCEED"}


def test_several_allocations_are_left_at_once(three):
    futures = [three.submit(BasicTemplate, name=f"n{n}", exec="sleep", args=["1000"]) for n in range(9)]
    three.__exit__(KeyboardInterrupt, None, None)
    assert all(future.cancelled() for future in futures)


def test_what_is_for_one_allocation_only_says_so(three, make):
    with pytest.raises(InvalidOption, match="count="):
        three.detach()
    with pytest.raises(InvalidOption, match="count="):
        three.qcgpj_manager.resources()
    with pytest.raises(JobUnknown, match="one allocation"):
        three.attach("a")


def test_a_job_that_is_submitted_when_it_was_looked_for_in_vain_runs(make, monkeypatch):
    looked, left = threading.Event(), threading.Event()
    has_items = Inbox.has_items.fget

    def look_and_be_held_up(inbox):
        found = has_items(inbox)
        if not found:
            looked.set()
            assert left.wait(20)
        return found

    monkeypatch.setattr(Inbox, "has_items", property(look_and_be_held_up))
    executor = make()
    executor._connection.dispatcher._inbox.alarm.set()
    assert looked.wait(20)
    future = executor.submit(BasicTemplate, name="a", exec="true")
    executor.shutdown(wait=False)
    left.set()
    assert future.result(60) == {"a": "SUCCEED"}
