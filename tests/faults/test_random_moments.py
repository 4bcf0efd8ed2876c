"""The client is ended at any moment of its life: nothing is left of it, of its manager and of its jobs.

REPETITIONS in the environment says how often each is done; the default keeps the whole in a few seconds. SEED makes
the moments others.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import processes
import pytest

REPETITIONS = int(os.environ.get("REPETITIONS", "4"))
SEED = os.environ.get("SEED", "")
LONGEST = 0.8  # seconds: from before the manager starts to the middle of the jobs

# Python ignores a Ctrl-C that comes in a finalizer or in a weak reference's callback, and says so.
IGNORED = b"Exception ignored "
CLIENT = """
from qcg.pilotjob.executor_api import *
with QCGPJExecutor(resources=2) as executor:
    for n in range(100_000):
        executor.submit(ScriptTemplate, name=f"n{n}", script="(setsid sleep 1000 &) ; sleep 0.0$((RANDOM % 10)); :")
        if n % 50 == 0:
            executor.submit(BasicTemplate, name=f"wait{n}", exec="sleep", args=["0.05"]).result()
"""


def left_of(directory):
    """Return the processes that work in a directory: the client, its manager and all its jobs do."""
    return [process for process in processes.living() if processes.directory(process) == str(directory)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("repetition", range(REPETITIONS))
def test_nothing_is_left_of_a_client_that_was_ended(tmp_path, wait_until, number, repetition):
    moment = random.Random(f"{SEED}{number}{repetition}").uniform(0, LONGEST)
    said = tmp_path / "said"
    with said.open("wb") as stderr:
        client = subprocess.Popen([sys.executable, "-c", CLIENT], cwd=tmp_path, stdout=stderr, stderr=stderr)
    time.sleep(moment)  # the moment itself is what is varied
    client.send_signal(number)
    wait_until(lambda: client.poll() is not None or IGNORED in said.read_bytes(), "the client's end")
    if client.poll() is None:
        client.send_signal(number)  # as a user would, when nothing happens
        client.wait(30)
    wait_until(lambda: not left_of(tmp_path), f"the end of all processes after {moment:.3f} s")
    sockets = [path for path in Path(tempfile.gettempdir()).iterdir() if path.name.startswith("qcgpj-")]
    assert sockets == []


def test_ctrl_c_twice(tmp_path, wait_until):
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: len(left_of(tmp_path)) > 4, "a few jobs")
    client.send_signal(signal.SIGINT)
    time.sleep(0.01)  # a second key press
    client.send_signal(signal.SIGINT)
    client.wait(30)
    wait_until(lambda: not left_of(tmp_path), "the end of all processes")
