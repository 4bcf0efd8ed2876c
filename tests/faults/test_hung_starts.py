"""Starts that do not return, or cannot be made just now: others go on, and an end is an end."""

import contextlib
import itertools
import os
import resource
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import processes
import psutil
import pytest

from qcg.pilotjob.executor_api import BasicTemplate, QCGPJExecutor, ScriptTemplate

# by what the program is looked for in PATH, either the C library starts it or Python itself
PATHS = pytest.mark.parametrize("path", [os.environ["PATH"], f"not/absolute:{os.environ['PATH']}"], ids=["c", "python"])


def starter_of(executor):
    return psutil.Process(executor._connection.dispatcher.link.process.description["starter"])


@pytest.fixture
def fifo(tmp_path):
    """A named pipe at whose other end is nobody: who opens it waits, as for a file system that does not answer."""
    os.mkfifo(tmp_path / "fifo")
    return "fifo"


def hung(executor, fifo, name, stream="stdout", path=os.environ["PATH"], **more):
    """Submit a job that would touch a file, and return its future when its start hangs."""
    template = {
        "name": name,
        "execution": {"exec": "touch", "args": [f"{name}.ran"], stream: fifo, "env": {"PATH": path}},
    }
    return executor.submit(lambda: repr({**template, **more}))


@PATHS
@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_a_start_that_hangs_is_cancelled(tmp_path, wait_until, fifo, stream, path):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        future = hung(executor, fifo, "h", stream, path)
        wait_until(lambda: future.status() == {"h": "EXECUTING"})
        assert future.cancel()
        assert future.status() == {"h": "CANCELED"}
        assert executor.submit(BasicTemplate, name="a", exec="true").result(20) == {"a": "SUCCEED"}
        fd = os.open(tmp_path / fifo, os.O_RDWR)  # whoever waits for the other end goes on now
        try:
            wait_until(lambda: not processes.children(starter_of(executor)))
            assert executor.submit(BasicTemplate, name="b", exec="true").result(20) == {"b": "SUCCEED"}
        finally:
            os.close(fd)
    assert not (tmp_path / "h.ran").exists()


@PATHS
def test_a_start_that_hangs_has_its_walltime(tmp_path, fifo, path):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        future = hung(executor, fifo, "h", path=path, resources={"numCores": {"exact": 1}, "wt": "1s"})
        after = executor.submit(BasicTemplate, name="a", exec="true")
        assert future.result(20) == {"h": "FAILED"}
        assert "walltime of 0:00:01 is over" in future.info()["h"]["messages"]
        assert after.result(20) == {"a": "SUCCEED"}
    assert not (tmp_path / "h.ran").exists()


@PATHS
def test_who_leaves_need_not_wait_for_a_start_that_hangs(tmp_path, wait_until, fifo, path):
    with pytest.raises(KeyboardInterrupt), QCGPJExecutor(wd=tmp_path, resources=2) as executor:  # noqa: PT012
        future = hung(executor, fifo, "h", path=path)
        wait_until(lambda: future.status() == {"h": "EXECUTING"})
        began = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - began < 15
    assert future.cancelled()


def test_a_start_that_hangs_goes_on_when_it_can(tmp_path, wait_until, fifo):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        future = executor.submit(ScriptTemplate, name="h", script="echo said", stdout=fifo)
        wait_until(lambda: future.status() == {"h": "EXECUTING"})
        with (tmp_path / fifo).open() as reader:
            assert reader.read() == "said\n"
        assert future.result(20) == {"h": "SUCCEED"}


@pytest.fixture
def no_more_processes():
    """A function that keeps a process, and what comes from it, from having any more processes or threads."""
    with contextlib.ExitStack() as stack:
        mounted = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        command = ["mount", "-t", "cgroup", "-o", "pids", "none", mounted]
        if os.geteuid() != 0 or subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode:
            pytest.skip("only root can limit that, where there is the controller pids of cgroups v1")
        stack.callback(subprocess.run, ["umount", mounted], check=True)
        group = mounted / f"qcgpj-{os.getpid()}"
        group.mkdir()
        stack.callback(group.rmdir)

        @contextlib.contextmanager
        def limited(process):
            before = next(
                line for line in Path(f"/proc/{process.pid}/cgroup").read_text().splitlines() if ":pids:" in line
            )
            (group / "cgroup.procs").write_text(str(process.pid))
            (group / "pids.max").write_text("0")
            try:
                yield
            finally:
                (group / "pids.max").write_text("max")
                for pid in (group / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        (mounted / before.partition(":pids:/")[2] / "cgroup.procs").write_text(pid)

        yield limited


@contextlib.contextmanager
def no_more_descriptors(process, most=0):
    before = process.rlimit(resource.RLIMIT_NOFILE)
    process.rlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        process.rlimit(resource.RLIMIT_NOFILE, before)


def run_many_while(executor, lack, path, wait_until):
    """Submit many jobs during a lack, and cancel one of them; all others succeed when it is over."""
    execution = {"exec": "true", "env": {"PATH": path}}
    with lack:
        template = {"execution": execution, "resources": {"numCores": {"exact": 1}, "wt": "1s"}}
        futures = [executor.submit(lambda n=n: repr({"name": f"n{n}", **template})) for n in range(50)]
        wait_until(lambda: futures[0].status() == {"n0": "EXECUTING"})
        wait(futures, 2)  # longer than their walltime: they have not begun
        assert futures[0].status() == {"n0": "EXECUTING"}
        assert futures[0].cancel()
    assert [future.result(60) for future in futures[1:]] == [{future.ids[0]: "SUCCEED"} for future in futures[1:]]


def test_a_short_lack_of_descriptors_delays_starts_and_fails_none(tmp_path, wait_until):
    path = f"not/absolute:{os.environ['PATH']}"  # so that Python starts the program, which needs descriptors for that
    with QCGPJExecutor(wd=tmp_path, resources=4) as executor:
        executor.submit(BasicTemplate, name="first", exec="true").result(20)
        run_many_while(executor, no_more_descriptors(starter_of(executor)), path, wait_until)


def test_a_cancel_waits_for_a_short_lack_of_descriptors(tmp_path, wait_until):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        manager = psutil.Process(executor._connection.dispatcher.link.process.pid)
        first, second = (
            executor.submit(ScriptTemplate, name=f"n{n}", script=f"touch {n}; sleep 99; :") for n in (1, 2)
        )
        wait_until(lambda: (tmp_path / "1").exists() and (tmp_path / "2").exists())
        assert first.cancel()  # which loads what is needed for it
        left = processes.children(starter_of(executor))
        used = set(map(int, os.listdir(f"/proc/{manager.pid}/fd")))
        free = next(number for number in itertools.count() if number not in used)  # below it are those that are used
        with ThreadPoolExecutor(1) as threads:
            with no_more_descriptors(manager, free):
                cancelled = threads.submit(second.cancel)
                log = next(tmp_path.glob(".qcgpjm-service-*")) / "service.log"
                wait_until(lambda: "cannot be looked for just now" in log.read_text())
                assert not cancelled.done()
            assert cancelled.result(20)
        assert not any(map(processes.lives, left))


@PATHS
def test_a_short_lack_of_processes_delays_starts_and_fails_none(tmp_path, wait_until, no_more_processes, path):
    with QCGPJExecutor(wd=tmp_path, resources=4) as executor:
        executor.submit(BasicTemplate, name="first", exec="true").result(20)
        run_many_while(executor, no_more_processes(starter_of(executor)), path, wait_until)


def test_a_short_lack_of_processes_before_the_first_job(tmp_path, wait_until, no_more_processes):
    with QCGPJExecutor(wd=tmp_path, resources=4) as executor:  # the starter has no thread yet that could start one
        run_many_while(executor, no_more_processes(starter_of(executor)), os.environ["PATH"], wait_until)
