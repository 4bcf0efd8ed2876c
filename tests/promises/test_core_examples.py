"""The documented ways to use the core alone work with what this package installs, and leave no process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import processes
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "core"
pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="the core alone expects an event loop that Python 3.14 does not make any more"
)
OUTPUTS = {f"job.out.{it}": f"iteration {it} of job squares: {it * it}\n" for it in range(4)}


def _of_session(session):
    return [processes.words(process) for process in processes.living() if processes.session(process) == session]


@pytest.fixture
def run_program(tmp_path, wait_until):
    """Run a command as a user would, in a session of its own; after it nothing of that session may stay alive."""

    def run(*command):
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
        with subprocess.Popen(
            [*map(str, command)],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=120)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                pytest.fail(f"{command} did not end: {process.communicate()[0]}")
        assert process.returncode == 0, output
        wait_until(lambda: _of_session(process.pid) == [], "the end of all processes")
        return output

    return run


def _states(directory):
    (service,) = directory.glob(".qcgpjm-service-*")
    assert (service / "service.log").stat().st_size > 0
    records = map(json.loads, (service / "jobs.report").read_text().splitlines())
    return {record["name"]: record["state"] for record in records}


def _outputs(directory):
    return {path.name: path.read_text() for path in directory.glob("job.out.*")}


def test_local_manager_runs_an_array_and_shows_its_files(run_program, tmp_path):
    output = run_program(sys.executable, EXAMPLES / "local_manager.py")

    assert _outputs(tmp_path) == OUTPUTS
    assert _states(tmp_path) == {**{f"squares:{it}": "SUCCEED" for it in range(4)}, "squares": "SUCCEED"}
    assert "resources: 1 node, 2 cores" in output
    assert "wait4: {'squares': 'SUCCEED'}" in output
    assert "info: exit codes ['0', '0', '0', '0']" in output
    assert output.splitlines()[-1] == "service.log: written"


@pytest.mark.parametrize(
    "service",
    [
        pytest.param([sys.executable, "-m", "qcg.pilotjob.service"], id="module"),
        pytest.param([Path(sysconfig.get_path("scripts")) / "qcg-pm-service"], id="command"),
    ],
)
def test_a_batch_file_runs_to_its_end(run_program, tmp_path, service):
    shutil.copy(EXAMPLES / "jobs.json", tmp_path)

    run_program(*service, "--file-path", "jobs.json")

    assert _outputs(tmp_path) == OUTPUTS
    assert (tmp_path / "collect.out").read_text() == "".join(OUTPUTS.values())
    expected = [*(f"squares:{it}" for it in range(4)), "squares", "collect"]
    assert _states(tmp_path) == dict.fromkeys(expected, "SUCCEED")
