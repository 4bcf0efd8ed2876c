"""The examples do what their index says, in an empty directory."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run_example(tmp_path):
    """Run an example in an empty directory; return its exit code and the lines that it prints."""

    def run(name, *arguments):
        completed = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert completed.stderr == ""
        return completed.returncode, completed.stdout.splitlines()

    return run


def test_the_first_script_prints_the_result_and_the_date(run_example, tmp_path):
    code, (result, date) = run_example("first.py")

    assert code == 0
    assert result == "{'today': 'SUCCEED'}"
    assert date == (tmp_path / "today.out").read_text().strip()
    assert date


def test_the_sweep_gives_every_root_and_says_why_one_job_failed(run_example):
    code, lines = run_example("parameter_sweep.py")

    assert code == 1
    assert "job 'root_of_-1' FAILED with exit code 1" in lines
    assert any(line.startswith("    | ValueError: ") for line in lines)  # the end of the job's stderr
    roots = [f"sqrt({x}) = {x**0.5:.6f}" for x in range(9)]
    assert lines[-10:] == [*roots, "9 succeeded, 1 failed"]


def test_the_asyncio_program_awaits_its_jobs_while_the_loop_goes_on(run_example):
    code, lines = run_example("asyncio_program.py")

    assert code == 0
    assert lines == ["lines: [10, 200, 3000]", "the loop was free: True"]


@pytest.mark.skipif(importlib.util.find_spec("psij") is None, reason="psij-python is not installed")
def test_the_study_from_the_login_node_gets_two_cores_of_this_machine(run_example, tmp_path):
    code, lines = run_example("allocations/study.py", "--local")

    assert code == 0
    assert any(" is RUNNING with 2 cores until " in line for line in lines)
    assert lines[-1] == "the sum of all results is 2470"
    assert (tmp_path / "study" / "run4.result").read_text() == "16\n"
