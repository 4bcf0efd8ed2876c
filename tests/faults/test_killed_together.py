"""Client, manager and starter are killed together: what is left of their jobs is no danger to the resumed run.

Each job holds a lock as long as it runs, and notes when it finds it taken: then it runs twice at the same time.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import wait
from pathlib import Path

import processes
import psutil
import pytest

from qcg.pilotjob.executor_api import IterationTemplate, ManagerDied, QCGPJExecutor, ScriptTemplate

ONCE = "exec 9> lock; flock -n 9 || echo twice >> twice; echo $$ >> begun; "
CLIENT = """
import sys, time
from qcg.pilotjob.executor_api import *
with QCGPJExecutor(wd="run", resources=2) as executor:
    executor.submit(ScriptTemplate, name="long", script=sys.argv[1], **eval(sys.argv[2])).status()
    process = executor._connection.dispatcher.link.process
    print(process.pid, process.description["starter"], flush=True)
    time.sleep(1000)
"""

NEST = """
import os, sys
from qcg.pilotjob.executor_api import *
depth, base = int(sys.argv[1]), sys.argv[2]
if os.path.exists(f"{base}/go"):
    sys.exit()
with QCGPJExecutor(wd=f"{base}/level{depth}", resources=2) as executor:
    process = executor._connection.dispatcher.link.process
    with open(f"{base}/managers", "a") as file:
        print(process.pid, process.description["starter"], process.description["sockets"], file=file)
    if depth:
        executor.submit(BasicTemplate, name="nest", exec=sys.executable, args=[__file__, str(depth - 1), base])
    else:
        executor.submit(ScriptTemplate, name="inmost", script=f"touch {base}/begun; (setsid sleep 1000) & sleep 1000")
"""


def begin(directory, script, **parameters):
    """Start a client in `directory`, and return its process and those of its manager and its starter."""
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, script, repr(parameters)], cwd=directory, stdout=subprocess.PIPE, text=True
    )
    with client.stdout:
        return [client, *(psutil.Process(int(pid)) for pid in client.stdout.readline().split())]


def kill_all(client, *others):
    """Kill them together: none of them sees the end of another one."""
    for process in (client, *others):
        process.send_signal(signal.SIGSTOP)
    for process in (client, *others):
        process.kill()
    client.wait()
    for process in others:
        process.wait(30)


def presence_of(run):
    (path,) = run.glob(".qcgpjm-service-*/manager.json")
    return path


@pytest.fixture
def orphan(tmp_path, wait_until):
    """A job whose client, manager and starter were killed, and that runs on; its process, and the run's directory."""
    run = tmp_path / "run"
    killed = begin(tmp_path, ONCE + "[ -e go ] || { trap '' TERM; sleep 1000; sleep 1000; }; echo end >> ended")
    wait_until(lambda: (run / "begun").exists() and (run / "begun").read_text())
    kill_all(*killed)
    process = psutil.Process(int((run / "begun").read_text()))
    sockets = Path(json.loads(presence_of(run).read_bytes())["sockets"])
    assert processes.lives(process)
    (run / "go").touch()
    yield process, run
    for left in processes.living(QCG_PM_ZMQ_ADDRESS=f"ipc://{sockets}/manager:0"):
        processes.kill(left)
    for path in sockets.iterdir() if sockets.exists() else ():
        path.unlink()
    if sockets.exists():
        sockets.rmdir()


def test_what_a_killed_run_has_left_is_ended_before_its_jobs_run_again(orphan):
    process, run = orphan
    sockets = Path(json.loads(presence_of(run).read_bytes())["sockets"])
    with QCGPJExecutor(resume=run, resources=2) as executor:
        assert not processes.lives(process)
        assert not sockets.exists()
        assert executor.attach("long").result(20) == {"long": "SUCCEED"}
    assert len((run / "begun").read_text().split()) == 2
    assert (run / "ended").read_text().split() == ["end"]
    assert not (run / "twice").exists()


def test_a_start_that_a_killed_starter_has_left_half_way_is_ended(tmp_path, wait_until):
    run = tmp_path / "run"
    run.mkdir()
    os.mkfifo(run / "fifo")
    client, manager, starter = begin(tmp_path, ONCE + "echo end >> ended", stdout="fifo")

    wait_until(lambda: processes.children(starter))
    (half_way,) = processes.children(starter)
    kill_all(client, manager, starter)
    assert processes.lives(half_way)  # it waits for a reader, and would be a job when there is one
    with QCGPJExecutor(resume=run, resources=2) as executor:
        assert not processes.lives(half_way)
        with (run / "fifo").open() as reader:
            assert executor.attach("long").result(20) == {"long": "SUCCEED"}
            assert reader.read() == ""
    assert len((run / "begun").read_text().split()) == 1
    assert not (run / "twice").exists()


def test_a_run_that_was_killed_on_another_machine_is_resumed_and_that_is_said(orphan, capfd):
    process, run = orphan
    path = presence_of(run)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "host": "elsewhere"}))
    processes.kill(process)
    with QCGPJExecutor(resume=run, resources=2) as executor:
        assert executor.attach("long").result(20) == {"long": "SUCCEED"}
    assert "was killed on elsewhere" in capfd.readouterr().err


@pytest.mark.parametrize("sockets", ["", "/", "/tmp", "qcgpj-01234567", 5, None])
def test_what_is_no_directory_of_sockets_marks_no_process(orphan, sockets):
    process, run = orphan
    path = presence_of(run)
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": 1, "sockets": sockets}))
    QCGPJExecutor(resume=run, resources=1).shutdown()
    assert processes.lives(process)  # it bears the mark of another directory


@pytest.mark.parametrize("stop", [1, 30])
def test_a_job_whose_start_went_with_the_starter_runs_in_the_resumed_run(tmp_path, wait_until, stop):
    """The starter is stopped before it reads the order, and then killed."""
    script = ONCE.replace("> lock", "> lock.${it}") + "echo ${it} >> ended"
    with contextlib.suppress(ManagerDied), QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        starter = psutil.Process(executor._connection.dispatcher.link.process.description["starter"])
        starter.suspend()
        wait_until(lambda: starter.status() == psutil.STATUS_STOPPED)
        array = executor.submit(IterationTemplate, name="a", exec="bash", args=["-c", script], stop=stop)
        wait_until(lambda: executor.qcgpj_manager.resources()["used_cores"] == min(stop, 2))
        starter.kill()
        wait([array], 20)
        assert array.cancelled() or isinstance(array.exception(0), ManagerDied)
    with QCGPJExecutor(resume=tmp_path, resources=2) as executor:
        assert executor.attach("a").result(20) == {"a": "SUCCEED"}
    assert sorted((tmp_path / "ended").read_text().split(), key=int) == [str(number) for number in range(stop)]
    assert not (tmp_path / "twice").exists()


@pytest.mark.parametrize("who", ["the manager", "client, manager and starter"])
def test_the_jobs_of_executors_within_a_job_end_with_it(tmp_path, wait_until, who):
    """The inner managers are stopped: nobody but who ends the outer one's jobs can end what they have started."""
    (tmp_path / "nest.py").write_text(NEST)
    client = subprocess.Popen([sys.executable, tmp_path / "nest.py", "2", tmp_path], stderr=subprocess.DEVNULL)
    everybody = [psutil.Process(client.pid)]
    try:
        wait_until((tmp_path / "begun").exists)
        everybody += everybody[0].children(recursive=True)
        outer, *inner = [line.split() for line in (tmp_path / "managers").read_text().splitlines()]
        assert len(inner) == 2
        for manager, starter, _ in inner:
            os.kill(int(manager), signal.SIGSTOP)
            os.kill(int(starter), signal.SIGSTOP)
        if who == "the manager":
            os.kill(int(outer[0]), signal.SIGKILL)
            client.wait(30)
        else:
            kill_all(client, *(psutil.Process(int(pid)) for pid in outer[:2]))
            (tmp_path / "go").touch()
            with QCGPJExecutor(resume=tmp_path / "level2", resources=2) as executor:
                assert executor.attach("nest").result(20) == {"nest": "SUCCEED"}
        wait_until(lambda: not any(map(processes.lives, everybody)), "the end of all of them")
        wait_until(lambda: not any(Path(sockets).exists() for *_, sockets in (outer, *inner)))
    finally:
        for process in everybody:
            processes.kill(process)
        client.wait()


def test_the_jobs_of_executors_within_a_job_end_with_its_cancel(tmp_path, wait_until):
    """The inner managers are stopped: only the outer one can end what they have started."""
    (tmp_path / "nest.py").write_text(NEST)
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        script = f"exec {sys.executable} {tmp_path}/nest.py 1 {tmp_path}"
        job = executor.submit(ScriptTemplate, name="job", script=script)
        wait_until((tmp_path / "begun").exists)
        managers = [line.split() for line in (tmp_path / "managers").read_text().splitlines()]
        client = psutil.Process(int(managers[0][0])).parent()
        within = [client, *client.children(recursive=True)]
        try:
            for pid in (pid for manager in managers for pid in manager[:2]):
                os.kill(int(pid), signal.SIGSTOP)
            assert job.cancel()
            assert not any(map(processes.lives, within))
        finally:
            for process in within:
                processes.kill(process)
