"""Fixtures that look behind every test: no process, thread, socket or directory may be left."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import processes
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcg.pilotjob.executor_api import QCGPJExecutor
from qcg.pilotjob.executor_api._shared.proc import STARTER

DEADLINE = 30.0

# `make test &` and `nohup make test` ignore these, and so would what the tests start: only handlers are not handed on.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else lambda *_: None)

# one version of the code passes or fails, every time; `--hypothesis-profile=default` looks further
settings.register_profile("the same examples", derandomize=True)
settings.load_profile("the same examples")


def pytest_xdist_auto_num_workers(config):
    """Three tests a core at a time: most of them wait, for managers and for jobs."""
    return 3 * len(os.sched_getaffinity(0))


@given(st.none())
def use_hypothesis(nothing):
    """Have Hypothesis make the random numbers that it keeps."""


def pytest_collection_finish():
    # When it makes them, Hypothesis looks for who refers to them, and warns of nobody: what is frozen is not looked
    # through, and that may be all.
    use_hypothesis()
    gc.collect()
    gc.freeze()  # modules and the like stay: looking through them after every test would take a tenth of all the time


@pytest.fixture(name="wait_until", scope="session")
def fixture_wait_until():
    """A function that waits for a condition; its absence at the deadline fails the test."""

    def wait_until(condition, what="the condition", deadline=DEADLINE):
        end = time.monotonic() + deadline
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"{what} did not come within {deadline} s")
            time.sleep(0.005)

    return wait_until


@pytest.fixture
def jobs_of():
    """A function that returns the processes of the jobs of a manager."""

    def jobs_of(manager):
        return [process for process in processes.children(manager) if processes.name(process) not in ("", STARTER)]

    return jobs_of


def _children():
    uncollected = psutil.Process().children()  # what has ended is left behind too, until it is waited for
    return {*uncollected, *processes.children(psutil.Process())}


def _temporary_files():
    return set(Path(tempfile.gettempdir()).iterdir()) - set(Path(tempfile.gettempdir()).glob("pytest-*"))


def _threads():
    return {thread for thread in threading.enumerate() if thread.is_alive()}


def _listening():
    return {connection.laddr for connection in psutil.Process().net_connections("tcp") if connection.status == "LISTEN"}


def _told(thing):
    if isinstance(thing, psutil.Process):  # its words can change, so they are not what it is known by
        return f"{thing} {' '.join(processes.words(thing))[:200]}"
    return str(thing)


@pytest.fixture(scope="session", autouse=True)
def temporary_directory():
    """Temporary files in a directory of our own: other programs on the machine make and remove theirs."""
    with tempfile.TemporaryDirectory(prefix="qt-", dir="/tmp") as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", directory)
        Path(directory, "home").mkdir()
        patch.setenv("HOME", f"{directory}/home")  # some jobs run in login shells: whose profile it is must not matter
        patch.setattr(tempfile, "tempdir", directory)
        yield


@pytest.fixture(autouse=True)
def nothing_left(request, temporary_directory):
    """Fail the test that leaves something behind."""
    before = {look: look() for look in (_children, _temporary_files, _threads, _listening)}
    yield
    gc.collect()  # what raises in a finalizer becomes a warning, and that an error
    for look, found in before.items():
        name = look.__name__.strip("_").replace("_", " ")
        end = time.monotonic() + DEADLINE
        while look() - found and time.monotonic() < end:
            time.sleep(0.005)
        left = look() - found
        if left and not request.session.shouldstop:
            pytest.fail(f"left behind: {len(left)} {name}: {sorted(map(_told, left))[:5]}")


@pytest.fixture
def executor(tmp_path):
    """An executor on four cores in the test's directory."""
    made = QCGPJExecutor(wd=tmp_path, resources="4")
    yield made
    made.__exit__(KeyboardInterrupt, None, None)  # what a failed test left running must not be waited for


@pytest.fixture(scope="module")
def shared(temporary_directory, tmp_path_factory):
    """An executor of four cores and its directory, for all tests of a file that need no manager of their own."""
    directory = tmp_path_factory.mktemp("shared")
    made = QCGPJExecutor(wd=directory, resources="4")
    yield made, directory
    made.__exit__(KeyboardInterrupt, None, None)  # what a failed test left running must not be waited for


@pytest.fixture
def gate(tmp_path):
    """What calls wait for in a worker, until it is opened."""
    begun, go = tmp_path / "begun", tmp_path / "go"

    def wait():
        begun.touch()
        while not go.exists():
            time.sleep(0.005)

    return SimpleNamespace(wait=wait, is_waited_for=begun.exists, open=go.touch, path=go)


@pytest.fixture
def patient(monkeypatch):
    """An interrupted client does not kill its manager before that has recorded the ends of all jobs."""
    monkeypatch.setattr("qcg.pilotjob.executor_api._client.dispatching._CANCEL_SECONDS", 30.0)


@pytest.fixture
def run_script(tmp_path):
    """Run Python source in a process and a directory of its own, as a user would; returns the completed process."""

    def run(source, *arguments, options=(), cwd=None, timeout=300, env=None, check=True):
        completed = subprocess.run(
            [sys.executable, *options, "-c", textwrap.dedent(source), *map(str, arguments)],
            cwd=cwd or tmp_path,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and completed.returncode != 0:
            pytest.fail(f"exit code {completed.returncode}\n{completed.stdout}\n{completed.stderr}")
        return completed

    return run


@pytest.fixture
def read_page(tmp_path):
    """Do what a page of the documentation says, in the test's directory; `commands` is where python and ours are."""
    root = Path(__file__).parents[1]
    (tmp_path / "examples").symlink_to(root / "examples")

    def read(page, *options, commands, timeout, env=None):
        done = subprocess.run(
            [sys.executable, "-W", "error", root / "tests" / "pages" / "page.py", page, *options],
            cwd=tmp_path,
            env={**os.environ, **(env or {}), "PATH": f"{commands}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-5000:]

    return read
