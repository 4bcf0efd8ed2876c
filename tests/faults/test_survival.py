"""Faults around a running executor: each is invisible, or a prompt and true error.

With FULL=1 in the environment some of them last as long as in real life, instead of a second or three.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from qcg.pilotjob.executor_api import (
    BasicTemplate,
    JobFailed,
    JobRefused,
    ManagerDied,
    QCGPJExecutor,
    RunRecord,
    ScriptTemplate,
)

FULL = "FULL" in os.environ


def manager_of(executor):
    return psutil.Process(executor._connection.dispatcher.link.process.pid)


def test_a_manager_that_is_stopped_for_a_while_goes_on(executor, wait_until):
    futures = [executor.submit(BasicTemplate, name=f"a{n}", exec="true") for n in range(50)]
    manager = manager_of(executor)
    manager.suspend()
    wait_until(lambda: manager.status() == psutil.STATUS_STOPPED)
    late = [executor.submit(BasicTemplate, name=f"b{n}", exec="true") for n in range(50)]
    with pytest.raises(TimeoutError):
        late[-1].result(30 if FULL else 1)
    manager.resume()
    assert all(future.result(20) == {future.ids[0]: "SUCCEED"} for future in futures + late)


def test_a_stopped_manager_does_not_keep_an_interrupted_client(tmp_path):
    with pytest.raises(KeyboardInterrupt), QCGPJExecutor(wd=tmp_path, resources=2) as executor:  # noqa: PT012
        future = executor.submit(ScriptTemplate, name="a", script="sleep 1000; :")
        manager = manager_of(executor)
        manager.suspend()
        began = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - began < 15
    assert future.cancelled()
    assert not manager.is_running()


def test_no_event_is_lost_while_the_interpreter_stands_still(executor):
    futures = [executor.submit(BasicTemplate, name=f"a{n}", exec="true") for n in range(500)]
    ctypes.PyDLL(None).sleep(10 if FULL else 3)  # a C function that keeps the interpreter's lock
    assert all(future.result(30) == {future.ids[0]: "SUCCEED"} for future in futures)


def test_a_lost_event_is_found_out(executor, monkeypatch):
    # nothing loses events here, so the test does: the dispatcher is made deaf, and asks sooner than every 5 s
    dispatcher = executor._connection.dispatcher
    executor.submit(BasicTemplate, name="first", exec="true").result(20)
    monkeypatch.setattr("qcg.pilotjob.executor_api._client.channels.Channel.finished_jobs", lambda _: [])
    dispatcher._checks.put_off(0.2)
    assert executor.submit(BasicTemplate, name="a", exec="true").result(20) == {"a": "SUCCEED"}


def test_a_lost_event_is_found_out_among_many_jobs_that_wait(executor, monkeypatch):
    # as above; each question is about ten jobs, and most of them have long to wait
    requests = "qcg.pilotjob.executor_api._client.requests"
    monkeypatch.setattr(f"{requests}.CHECK_BATCH", 10)
    monkeypatch.setattr(f"{requests}._CHECK_SECONDS", 0.02)
    blocker = executor.submit(BasicTemplate, name="blocker", exec="sleep", args=[1000])
    waiting = [executor.submit(ScriptTemplate, name=f"a{n}", script="true", after=[blocker]) for n in range(100)]
    executor.submit(BasicTemplate, name="first", exec="true").result(20)
    monkeypatch.setattr("qcg.pilotjob.executor_api._client.channels.Channel.finished_jobs", lambda _: [])
    executor._connection.dispatcher._checks.put_off(0.02)
    futures = [executor.submit(BasicTemplate, name=f"b{n}", exec="true") for n in range(20)]
    assert all(future.result(20) == {future.ids[0]: "SUCCEED"} for future in futures)
    assert not any(future.done() for future in waiting)


def test_the_managers_directory_is_deleted(tmp_path, wait_until):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        running = executor.submit(ScriptTemplate, name="a", script="touch begun; until [ -e go ]; do sleep 0.01; done")
        wait_until((tmp_path / "begun").exists)
        shutil.rmtree(executor._connection.dispatcher.link.process.directories.aux)
        (tmp_path / "go").touch()
        assert running.result(20) == {"a": "SUCCEED"}
        late = executor.submit(BasicTemplate, name="b", exec="true")
        with pytest.raises(JobRefused, match="No such file or directory"):
            late.result(20)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_the_disk_is_full(tmp_path, wait_until):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=True)
    try:
        with QCGPJExecutor(wd=disk, resources=2) as executor:
            first = executor.submit(BasicTemplate, name="first", exec="true")
            assert first.result(20) == {"first": "SUCCEED"}
            running = executor.submit(ScriptTemplate, name="r", script="until [ -e go ]; do sleep 0.01; done")
            wait_until(lambda: running.status() == {"r": "EXECUTING"})
            with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb") as filler:  # noqa: PT012
                while True:
                    filler.write(b"x" * 4096)
                    filler.flush()
            late = executor.submit(BasicTemplate, name="late", exec="true")
            outcome = late.exception(20) or late.result(20)
            assert isinstance(outcome, JobRefused) or outcome["late"] in ("FAILED", "SUCCEED")
            (disk / "filler").unlink()
            (disk / "go").touch()
            assert running.result(20) == {"r": "SUCCEED"}
            assert executor.submit(BasicTemplate, name="last", exec="true").result(20) == {"last": "SUCCEED"}
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_job_whose_files_have_no_room_runs_again(tmp_path):
    """The disk is to blame, not the job: it has failed, and runs when the run is resumed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=1", "tmpfs", disk], check=True)
    try:
        with QCGPJExecutor(wd=tmp_path / "wd", resources=1) as executor:
            files = {"stdout": str(disk / "out"), "stderr": str(disk / "out")}
            job = executor.submit(BasicTemplate, name="a", exec="true", **files)
            assert job.result(20) == {"a": "FAILED"}
            with pytest.raises(JobFailed, match="No space left on device"):
                job.raise_for_status()
        subprocess.run(["mount", "-o", "remount,nr_inodes=100", disk], check=True)
        with QCGPJExecutor(resume=tmp_path / "wd", resources=1) as executor:
            assert executor.attach("a").result(20) == {"a": "SUCCEED"}
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_nothing_is_lost_of_jobs_that_end_while_the_disk_is_full(tmp_path, wait_until):
    disk, gate, ran = tmp_path / "disk", tmp_path / "go", tmp_path / "ran"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        with QCGPJExecutor(wd=disk, resources=2) as executor:
            wait_for_gate = f"until [ -e {gate} ]; do sleep 0.01; done; echo $$0 >> {ran}"
            futures = [
                executor.submit(
                    lambda n=n: repr(
                        {"name": f"n{n}", "execution": {"exec": "sh", "args": ["-c", wait_for_gate, f"n{n}"]}}
                    )
                )
                for n in range(400)
            ]
            assert futures[-1].status() == {"n399": "QUEUED"}  # so all have arrived
            with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb", buffering=0) as filler:  # noqa: PT012
                for size in (4096, 1):
                    with contextlib.suppress(OSError):
                        while True:
                            filler.write(size * b"x")
                filler.write(b"x")
            gate.touch()
            assert [future.result(60) for future in futures] == [{f"n{n}": "SUCCEED"} for n in range(400)]
            (disk / "filler").unlink()
        assert [row["state"] for row in RunRecord.of(disk)] == ["SUCCEED"] * 400
        QCGPJExecutor(resume=disk, resources=2).shutdown()
        assert sorted(ran.read_text().split()) == sorted(f"n{n}" for n in range(400))
    finally:
        subprocess.run(["umount", disk], check=True)


def run_limited(source, cwd, prefix="", env=None):
    """Run a program below a shell that sets limits first."""
    command = [sys.executable, "-c", textwrap.dedent(source)]
    return subprocess.run(
        ["bash", "-c", f'{prefix} exec "$@"', "bash", *command],
        cwd=cwd,
        env={**os.environb, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


MANY = """
from qcg.pilotjob.executor_api import *
with QCGPJExecutor(resources=100) as executor:
    futures = [executor.submit(ScriptTemplate, name=f"a{n}", script="sleep 0.1") for n in range(200)]
    assert all(future.result() == {future.ids[0]: "SUCCEED"} for future in futures)
print("all")
"""
ONE = """
from qcg.pilotjob.executor_api import *
with QCGPJExecutor(resources=1) as executor:
    print(executor.submit(BasicTemplate, name="a", exec="true").result(20))
"""


def test_few_open_files_are_enough_for_many_jobs(tmp_path):
    done = run_limited(MANY, tmp_path, "ulimit -n 64;")
    assert done.stdout == "all\n", done.stderr


def test_an_environment_that_is_not_text(tmp_path):
    done = run_limited(ONE, tmp_path, env={b"NOT_TEXT": b"\xff\xfe\x80"})
    assert done.stdout == "{'a': 'SUCCEED'}\n", done.stderr


def test_a_temporary_directory_that_cannot_be_written_to(tmp_path):
    done = run_limited(ONE, tmp_path, env={b"TMPDIR": b"/proc"})
    assert done.stdout == "{'a': 'SUCCEED'}\n", done.stderr


def test_the_signals_that_the_user_ignores_reach_the_jobs_all_the_same(tmp_path):
    done = run_limited(
        """
        from qcg.pilotjob.executor_api import *
        with QCGPJExecutor(resources=1) as executor:
            future = executor.submit(ScriptTemplate, name="a", script="kill -TERM $$; echo survived")
            print(future.result(20))
        """,
        tmp_path,
        "trap '' TERM INT HUP;",
    )
    assert done.stdout == "{'a': 'FAILED'}\n", done.stderr


def test_the_manager_gets_no_more_memory(tmp_path):
    # where memory is overcommitted the kernel kills instead: that is a dead manager, or a job that was ended
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        manager = manager_of(executor)
        executor.submit(BasicTemplate, name="first", exec="true").result(20)
        limit = manager.memory_info().vms + 2**20
        manager.rlimit(psutil.RLIMIT_AS, (limit, limit))
        iteration = {"values": [f"{n:0100}" for n in range(200_000)]}  # one that is not there yet takes no memory
        job = {"name": "large", "execution": {"exec": "true"}, "iteration": iteration}
        array = executor.submit(lambda: json.dumps(job))
        outcome = array.exception(20) or array.result(0)
        assert isinstance(outcome, (JobRefused, ManagerDied)), outcome
    QCGPJExecutor(wd=tmp_path, resources=2).shutdown()


def test_the_kernel_kills_a_job_for_its_memory(tmp_path, wait_until, jobs_of):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        job = executor.submit(ScriptTemplate, name="a", script="touch begun; sleep 1000; :")
        wait_until((tmp_path / "begun").exists)
        process, *_ = jobs_of(manager_of(executor))
        process.send_signal(signal.SIGKILL)
        assert job.result(20) == {"a": "FAILED"}
        assert executor.submit(BasicTemplate, name="b", exec="true").result(20) == {"b": "SUCCEED"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process a host name of its own")
def test_a_host_name_that_does_not_resolve(tmp_path):
    source = tmp_path / "client.py"
    source.write_text(ONE)
    command = 'hostname nowhere.invalid && exec "$@"'
    done = subprocess.run(
        ["unshare", "--uts", "sh", "-c", command, "sh", sys.executable, source],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "{'a': 'SUCCEED'}\n", done.stderr
