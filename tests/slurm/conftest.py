"""A Slurm cluster for the tests here, and a way to run programs in an allocation of it."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import psutil
import pytest

_MARK = "QCGPJ_TEST_RUN"
_LEFT_SECONDS = 10.0  # a step that has to be ended takes Slurm KillWait seconds and a little more


def _cluster_module():
    # tests are no package, and their directories are not on the path
    spec = importlib.util.spec_from_file_location("slurm_cluster", Path(__file__).with_name("cluster.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cluster_module():
    """The module `cluster`, where a cluster can be brought up."""
    module = _cluster_module()
    reason = module.why_not()
    if reason:
        pytest.skip(f"no Slurm cluster: {reason}")
    return module


@pytest.fixture(scope="module")
def cluster(cluster_module, temporary_directory):
    """A cluster of two nodes with two CPUs each."""
    made = cluster_module.Cluster()
    made.start()
    yield made
    made.stop()
    assert made.step_daemons() == []


@pytest.fixture
def in_allocation(cluster, tmp_path):
    """Run Python source in an allocation of both nodes, as a user would; returns the completed process.

    Whatever the source does, no process of it may be left a moment later, and the allocation must have ended.
    """
    return _runner(cluster, tmp_path)


@pytest.fixture
def in_allocation_of_its_own(cluster_module, temporary_directory, tmp_path):
    """The same in a cluster that the source may break; the allocation outlives its nodes."""
    made = cluster_module.Cluster()
    made.start()
    yield _runner(made, tmp_path, "--no-kill")
    made.stop()
    assert made.step_daemons() == []


def _runner(cluster, tmp_path, *options):
    def run(source, *arguments, limit=40, check=True, env=None, umask=-1):
        mark = uuid.uuid4().hex
        # the inner limit ends the program, which salloc would leave behind; the outer one ends a salloc that hangs
        limits = ["timeout", "-k", "5", str(limit)]
        command = [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]
        try:
            completed = subprocess.run(
                ["salloc", "-Q", "-N2", "--exclusive", *options, *limits, *command],
                cwd=tmp_path,
                env={**cluster.environment, **(env or {}), _MARK: mark},
                umask=umask,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=limit + 30,
                check=False,
            )
            _assert_nothing_left(cluster, mark)
        finally:
            cluster.cancel_jobs()
            for process in _marked(mark):
                process.kill()
        if check and completed.returncode != 0:
            logs = "\n".join(path.read_text()[-3000:] for path in tmp_path.glob(".qcgpjm-service-*/service.log"))
            pytest.fail(f"exit code {completed.returncode}\n{completed.stdout}\n{completed.stderr}\n{logs}")
        return completed

    return run


def _assert_nothing_left(cluster, mark):
    end = time.monotonic() + _LEFT_SECONDS
    while (_marked(mark) or cluster.jobs()) and time.monotonic() < end:
        time.sleep(0.02)
    left = [f"{process.pid}: {' '.join(process.cmdline())[:200]}" for process in _marked(mark)]
    assert not left
    assert not cluster.jobs()


def _marked(mark):
    """Return the processes of a run: srun and the agents hand the environment on to the jobs on every node."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.fixture
def cluster_command(cluster_module, tmp_path, wait_until):
    """Start ``python cluster.py``; returns the process and the SLURM_CONF that it printed."""
    started = []

    def start():
        output = tmp_path / "cluster.out"
        with output.open("wb") as file:
            process = subprocess.Popen([sys.executable, cluster_module.__file__], stdout=file, stderr=subprocess.STDOUT)
        started.append(process)
        wait_until(lambda: b"Ctrl-C" in output.read_bytes() or process.poll() is not None, "the cluster", 60)
        lines = output.read_text().splitlines()
        found = [line.partition("SLURM_CONF=")[2] for line in lines if "SLURM_CONF=" in line]
        assert found, lines
        return process, found[0]

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
