"""Short jobs start as soon as another one ends, without the manager; who watches cannot tell, except by the clock."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import CancelledError
from pathlib import Path

import processes
import psutil
import pytest

from qcg.pilotjob.executor_api import BasicTemplate, IterationTemplate, ManagerDied, QCGPJExecutor, ScriptTemplate

GATED = "until [ -e go ]; do sleep 0.01; done"


def starter_of(executor):
    return psutil.Process(executor._connection.dispatcher.link.process.description["starter"])


def report_of(executor):
    return Path(executor._connection.dispatcher.link.process.directories.report)


@pytest.fixture
def gate(tmp_path, wait_until):
    """An executor on one core where short jobs have ended, one holds the core, and what comes next will be ready."""
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        executor.submit(BasicTemplate, name="short", exec="true").result(20)
        holder = executor.submit(ScriptTemplate, name="holder", script=f"touch held; {GATED}")
        wait_until((tmp_path / "held").exists)
        yield executor
        (tmp_path / "go").touch()
        assert holder.result(20) == {"holder": "SUCCEED"}


def test_jobs_start_in_the_order_of_their_submission(gate, tmp_path):
    futures = [
        gate.submit(IterationTemplate, name=f"a{n}", stop=3, exec="sh", args=["-c", f"echo a{n}:${{it}} >> order"])
        if n % 3 == 0
        else gate.submit(ScriptTemplate, name=f"n{n}", script=f"echo n{n} >> order")
        for n in range(40)
    ]
    (tmp_path / "go").touch()
    assert all("SUCCEED" in future.result(30).values() for future in futures)
    expected = [line for n in range(40) for line in ([f"a{n}:{it}" for it in range(3)] if n % 3 == 0 else [f"n{n}"])]
    assert (tmp_path / "order").read_text().split() == expected


def test_no_core_is_given_twice(tmp_path):
    script = "date +%s.%N >> $name.times; sleep 0.0$((RANDOM % 3)); date +%s.%N >> $name.times"
    with QCGPJExecutor(wd=tmp_path, resources=3) as executor:
        futures = [
            executor.submit(ScriptTemplate, name=f"n{n}", script=f"name=n{n}; {script}", cores=1 + n % 7 // 6)
            for n in range(100)
        ]
        assert all(future.result(60) == {future.ids[0]: "SUCCEED"} for future in futures)
    changes = []
    for n in range(100):
        cores = 1 + n % 7 // 6
        began, ended = map(float, (tmp_path / f"n{n}.times").read_text().split())
        changes += [(began, cores), (ended, -cores)]
    used = 0
    for _, change in sorted(changes):
        used += change
        assert used <= 3


def test_what_is_on_record_is_what_it_always_was(gate, tmp_path):
    futures = [gate.submit(BasicTemplate, name=f"n{n}", exec="true") for n in range(30)]
    (tmp_path / "go").touch()
    assert all(future.result(20) for future in futures)
    first, *entries = [json.loads(line) for line in report_of(gate).read_text().splitlines() if '"name": "n' in line]
    assert len(entries) == 29
    for entry in entries:
        assert (
            [step["state"] for step in entry["history"]]
            == [step["state"] for step in first["history"]]
            == ["QUEUED", "SCHEDULED", "EXECUTING", "SUCCEED"]
        )
        assert entry["runtime"].keys() == first["runtime"].keys()
        assert entry["runtime"]["allocation"] == first["runtime"]["allocation"]


def test_a_cancelled_job_that_was_ready_never_runs(gate, tmp_path):
    futures = [gate.submit(ScriptTemplate, name=f"n{n}", script=f"touch n{n}.ran") for n in range(30)]
    gone = futures[0:30:3]
    assert all(future.cancel() for future in gone)
    (tmp_path / "go").touch()
    for future in futures:
        if future in gone:
            with pytest.raises(CancelledError):
                future.result(20)
        else:
            assert future.result(20) == {future.ids[0]: "SUCCEED"}
        assert (tmp_path / f"{future.ids[0]}.ran").exists() == (future not in gone)


@pytest.mark.parametrize("turn", range(5))
def test_a_cancel_in_the_midst_of_many_short_jobs(tmp_path, turn):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        futures = [executor.submit(ScriptTemplate, name=f"n{n}", script=f"touch n{n}.ran") for n in range(60)]
        futures[5 * turn].result(20)
        for future in futures[10::2]:
            future.cancel()
    for number, future in enumerate(futures):
        state = future.status()[f"n{number}"]
        assert state in ("SUCCEED", "CANCELED")
        assert (number >= 10 and number % 2 == 0) or state == "SUCCEED"
        if state == "SUCCEED":
            assert (tmp_path / f"n{number}.ran").exists()


def test_an_interrupt_takes_back_what_is_ready(tmp_path, wait_until):
    with pytest.raises(KeyboardInterrupt), QCGPJExecutor(wd=tmp_path, resources=1) as executor:  # noqa: PT012
        executor.submit(BasicTemplate, name="short", exec="true").result(20)
        executor.submit(ScriptTemplate, name="holder", script="touch held; sleep 1000")
        wait_until((tmp_path / "held").exists)
        futures = [executor.submit(ScriptTemplate, name=f"n{n}", script=f"touch n{n}.ran") for n in range(30)]
        raise KeyboardInterrupt
    assert all(future.cancelled() for future in futures)
    assert not list(tmp_path.glob("*.ran"))


def test_one_that_cannot_start_gives_its_core_to_the_next(gate, tmp_path):
    missing = [gate.submit(BasicTemplate, name=f"m{n}", exec="/no/such") for n in range(5)]
    others = [gate.submit(BasicTemplate, name=f"n{n}", exec="true") for n in range(5)]
    (tmp_path / "go").touch()
    assert [future.result(20) for future in missing] == [{f"m{n}": "FAILED"} for n in range(5)]
    assert [future.result(20) for future in others] == [{f"n{n}": "SUCCEED"} for n in range(5)]
    assert "no program '/no/such'" in str(missing[0].info())


def test_one_that_hangs_at_its_start_does_not_hide_the_end_before_it(gate, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    before = gate.submit(BasicTemplate, name="before", exec="true")
    held = gate.submit(lambda: "{'name': 'held', 'execution': {'exec': 'cat', 'args': ['-'], 'stdin': 'fifo'}}")
    (tmp_path / "go").touch()
    assert before.result(20) == {"before": "SUCCEED"}
    (tmp_path / "fifo").write_text("through")
    assert held.result(20) == {"held": "SUCCEED"}


def test_what_a_job_leaves_behind_is_ended_before_the_next_one_starts(gate, tmp_path):
    leaving = gate.submit(ScriptTemplate, name="leaving", script="sleep 1000 & echo $! > left")
    after = gate.submit(ScriptTemplate, name="after", script="! kill -0 $(cat left)")
    (tmp_path / "go").touch()
    assert leaving.result(20) == {"leaving": "SUCCEED"}
    assert after.result(20) == {"after": "SUCCEED"}


def test_the_walltime_of_one_that_was_ready(gate, tmp_path):
    slow = gate.submit(ScriptTemplate, name="slow", script="sleep 1000", walltime="1s")
    after = gate.submit(BasicTemplate, name="after", exec="true")
    (tmp_path / "go").touch()
    assert slow.result(20) == {"slow": "FAILED"}
    assert "walltime" in str(slow.info())
    assert after.result(20) == {"after": "SUCCEED"}


def test_a_starter_that_is_killed_is_the_end_of_the_manager(tmp_path, wait_until, jobs_of):
    executor = QCGPJExecutor(wd=tmp_path, resources=2)
    executor.submit(BasicTemplate, name="short", exec="true").result(20)  # so some of the next ones will be ready
    futures = [executor.submit(ScriptTemplate, name=f"n{n}", script=f"touch n{n}.begun; sleep 1000") for n in range(30)]
    wait_until(lambda: len(list(tmp_path.glob("*.begun"))) == 2)
    starter = starter_of(executor)
    jobs = jobs_of(starter)
    starter.kill()
    for future in futures:
        with pytest.raises(ManagerDied, match=r"the process that starts jobs has ended(.|\n)*service\.log"):
            future.result(4.5)  # after 5 s the manager ends itself by force
    executor.shutdown()
    wait_until(lambda: not any(job.is_running() for job in jobs))
    log = next(tmp_path.glob(".qcgpjm-service-*")) / "service.log"
    assert "the process that starts jobs has ended" in log.read_text()


def test_nothing_outlives_client_and_manager_that_are_killed_at_once(tmp_path, wait_until, jobs_of):
    source = """
        from qcg.pilotjob.executor_api import *
        executor = QCGPJExecutor(resources=2)
        for n in range(9):
            executor.submit(ScriptTemplate, name=f"n{n}", script=f"touch n{n}.begun; (setsid sleep 1000) & sleep 1000")
        print(executor._connection.dispatcher.link.process.pid, executor._connection.dispatcher.link.process._sockets)
        executor.shutdown()
    """
    with subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(source)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as client:
        try:
            pid, sockets = client.stdout.readline().split()
            manager = psutil.Process(int(pid))
            wait_until(lambda: [processes.name(job) for job in jobs_of(manager)].count("sleep") == 4)
            left = manager.children(recursive=True)
            manager.kill()
        finally:
            client.kill()
    wait_until(lambda: not any(map(processes.lives, left)))
    wait_until(lambda: not Path(sockets).exists())


def test_a_starter_that_is_asked_to_end_by_a_signal_goes_on(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        executor.submit(BasicTemplate, name="first", exec="true").result(20)  # so the starter has begun its work
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            starter_of(executor).send_signal(number)
        assert executor.submit(BasicTemplate, name="a", exec="true").result(20) == {"a": "SUCCEED"}
