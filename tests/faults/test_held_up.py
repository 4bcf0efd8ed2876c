"""What happens when somebody is held up in the very moment in which it matters."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from concurrent.futures import CancelledError
from pathlib import Path

import processes
import psutil
import pytest

from qcg.pilotjob.executor_api import BasicTemplate, ManagerDied, ManagerStartError, QCGPJExecutor, ScriptTemplate
from qcg.pilotjob.executor_api._client.channels import Alarm, Channel
from qcg.pilotjob.executor_api._client.inbox import Inbox
from qcg.pilotjob.executor_api._client.own_manager import PipedProcess
from qcg.pilotjob.executor_api._processes import descendants


def manager_of(executor):
    return executor._connection.dispatcher.link.process


@pytest.fixture
def client(tmp_path):
    """Start a client program in the test's directory; it has printed a line, which is returned too."""
    programs = []

    def start(source):
        command = [sys.executable, "-u", "-c", textwrap.dedent(source)]
        programs.append(subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True))
        return programs[-1], programs[-1].stdout.readline().split()

    yield start
    for program in programs:
        program.kill()
        program.communicate()


# ---- managers


def test_one_that_waits_for_the_end_of_the_one_before_is_the_only_one(client, tmp_path, wait_until):
    program, _ = client(
        """
        import time
        from qcg.pilotjob.executor_api import *
        executor = QCGPJExecutor(resources=1)
        script = "[ -e begun ] || trap '' TERM; touch begun; sleep 1000; :"
        executor.submit(ScriptTemplate, name="a", script=script)
        print("ready")
        time.sleep(1000)
        """
    )
    wait_until((tmp_path / "begun").exists)
    program.kill()  # its manager needs a second: the job ignores SIGTERM
    with QCGPJExecutor(wd=tmp_path, resources=1, resume=tmp_path) as executor:
        presence = Path(manager_of(executor).directories.aux, "manager.json")
        with presence.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with QCGPJExecutor(manager=tmp_path) as second:
            assert second.attach("a").cancel()


def test_the_directory_of_one_that_is_held_up_at_its_start_is_removed(tmp_path, monkeypatch, wait_until):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))

    def hold():
        wait_until(lambda: list(temporary.glob("qcgpj-*")))
        for each in psutil.Process().children():
            if "qcgpj-manager" in processes.words(each):
                each.suspend()

    holder = threading.Thread(target=hold)
    holder.start()
    with contextlib.suppress(ManagerStartError, ManagerDied):  # the latter when it is ready before it is held
        QCGPJExecutor(wd=tmp_path, resources=1, start_timeout=0.5).__exit__(KeyboardInterrupt, None, None)
    holder.join()
    wait_until(lambda: not list(temporary.iterdir()))


def test_a_job_that_is_being_started_when_all_others_are_killed_is_killed_too(client, tmp_path, wait_until):
    os.mkfifo(tmp_path / "output")  # a file system that takes its time
    program, (manager, starter) = client(
        """
        import time
        from qcg.pilotjob.executor_api import *
        executor = QCGPJExecutor(resources=1)
        executor.submit(BasicTemplate, name="a", exec="sleep", args=["1000"], stdout="output")
        executor.qcgpj_manager.resources()
        process = executor._connection.dispatcher.link.process
        print(process.pid, process.description["starter"])
        time.sleep(1000)
        """
    )
    starting = processes.children(psutil.Process(int(starter)))
    wait_until(lambda: starting or starting.extend(processes.children(psutil.Process(int(starter)))))
    program.kill()
    os.kill(int(manager), signal.SIGKILL)
    try:
        wait_until(lambda: not processes.lives(int(starter)))
        wait_until(lambda: not any(map(processes.lives, starting)))
    finally:
        for process in starting:
            processes.kill(process)


# ---- leaving


@pytest.mark.parametrize("whose", ["its own", "another's"])
def test_a_job_that_is_submitted_when_it_was_looked_for_in_vain_runs(tmp_path, monkeypatch, whose):
    looked, left = threading.Event(), threading.Event()
    take = Inbox.take

    def take_and_be_held_up(inbox, most):
        found = take(inbox, most)
        if watched and inbox is watched[0] and found == ([], None):
            looked.set()
            assert left.wait(20)
        return found

    watched = []
    monkeypatch.setattr(Inbox, "take", take_and_be_held_up)
    with QCGPJExecutor(wd=tmp_path, resources=1) as owner:
        executor = owner if whose == "its own" else QCGPJExecutor(manager=tmp_path)
        inbox = executor._connection.dispatcher._inbox
        watched.append(inbox)
        inbox.alarm.set()
        assert looked.wait(20)
        future = executor.submit(BasicTemplate, name="a", exec="true")
        executor.shutdown(wait=False)
        left.set()
        assert future.result(20) == {"a": "SUCCEED"}
        executor.shutdown()


def test_a_second_interrupt_does_not_undo_the_first(executor, tmp_path, monkeypatch, wait_until):
    futures = [executor.submit(ScriptTemplate, name=f"a{n}", script="touch begun; sleep 1000; :") for n in range(6)]
    wait_until((tmp_path / "begun").exists)
    cancel_all, interrupts = executor._cancel_all, iter([KeyboardInterrupt()])

    def interrupted():
        for interrupt in interrupts:
            raise interrupt
        cancel_all()

    monkeypatch.setattr(executor, "_cancel_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        executor.__exit__(KeyboardInterrupt, None, None)
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(0)


def test_what_ended_before_an_interrupt_has_ended_however_late_it_is_heard(tmp_path, monkeypatch, wait_until):
    with pytest.raises(KeyboardInterrupt), QCGPJExecutor(wd=tmp_path, resources=1) as executor:  # noqa: PT012
        executor.submit(BasicTemplate, name="first", exec="true").result(20)
        monkeypatch.setattr(Channel, "finished_jobs", lambda _: [])
        future = executor.submit(BasicTemplate, name="a", exec="true")
        report = Path(manager_of(executor).directories.report)
        wait_until(lambda: report.read_text().count("\n") == 2)
        psutil.Process(manager_of(executor).pid).suspend()
        raise KeyboardInterrupt
    assert future.result(0) == {"a": "SUCCEED"}


def test_an_executor_that_ends_while_the_interpreter_looks_after_all_does_not_stop_it(run_script):
    completed = run_script(
        """
        import time, weakref
        from qcg.pilotjob.executor_api import *
        from qcg.pilotjob.executor_api._client import endings

        class Held(weakref.WeakSet):
            def __iter__(self):
                for dispatcher in super().__iter__():
                    yield dispatcher
                    until(lambda: ending.has_ended, 20)
                    until(lambda: ending not in self, 0.2)  # which has to wait

        def until(condition, seconds):
            end = time.monotonic() + seconds
            while not condition() and time.monotonic() < end:
                time.sleep(0.01)

        first, second = (QCGPJExecutor(resources=1, wd=name) for name in "ab")
        endings._dispatchers = Held(endings._dispatchers)
        ending = first._connection.dispatcher
        late = second.submit(ScriptTemplate, name="late", script="sleep 0.5")
        late.add_done_callback(lambda future: print(future.result(), flush=True))
        first.shutdown(wait=False)
        """
    )
    assert (completed.stdout, completed.stderr) == ("{'late': 'SUCCEED'}\n", "")


# ---- forks and signals


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # it is what is tested
def test_a_fork_while_another_thread_is_about_to_wait_ends(executor):
    dispatcher = executor._connection.dispatcher
    with dispatcher._ended._cond:  # as a thread has it that begins to wait
        child = os.fork()
        if child == 0:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_descriptor_is_not_closed_twice_by_a_fork_meanwhile(tmp_path, monkeypatch):
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    piped = PipedProcess(command, {}, "ready", str(tmp_path / "output"))
    close, seen = os.close, []
    monkeypatch.setattr(os, "close", lambda fd: (seen.append(piped.end_fd), close(fd)))
    piped.close_descriptors()
    assert seen[0] == -1
    assert piped.wait(20)


def test_an_interrupt_while_the_alarm_is_set_does_not_silence_it(monkeypatch):
    alarm = Alarm()
    write_end = alarm._write_end

    class Interrupted:
        def send(self, _):
            raise KeyboardInterrupt

    monkeypatch.setattr(alarm, "_write_end", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        alarm.set()
    monkeypatch.setattr(alarm, "_write_end", write_end)
    alarm.set()
    assert alarm._read_end.recv(1) == b"\0"
    alarm.close()


# ---- jobs and calls


def test_what_comes_from_one_that_ends_during_the_search_is_found(monkeypatch, wait_until):
    mark = {descendants.MARK: uuid.uuid4().hex}
    leader = subprocess.Popen(
        ["bash", "-c", "setsid sleep 1000 & read line"], env={**os.environ, **mark}, stdin=subprocess.PIPE
    )
    begin = psutil.Process.__init__

    def look(process, pid=None):
        if pid is not None and leader.poll() is None:  # until now it was only listed
            leader.stdin.close()
            leader.wait()
        begin(process, pid)

    wait_until(lambda: [processes.name(each) for each in processes.living(**mark)].count("sleep") == 1)
    with monkeypatch.context() as patch:
        patch.setattr(psutil.Process, "__init__", look)
        (found,) = descendants.marked(set(mark.values())).values()
    (stray,) = processes.living(**mark)
    stray.kill()
    assert found == [stray]
