"""What every user of a machine sees of a run: the command lines of its processes, which hold nothing that is secret."""

import json
import time
import venv

import processes
import psutil
import pytest

from qcg.pilotjob.executor_api import QCGPJExecutor, ScriptTemplate

SECRET = "s3cret'\"$ value"
HOLD = "touch begun; until [ -e go ]; do sleep 0.01; done"


@pytest.fixture
def seen(tmp_path, wait_until):
    """A function that waits until a job has begun, and returns the command lines of all processes of this program."""

    def look():
        wait_until((tmp_path / "begun").exists)
        found = [" ".join(processes.words(one)) for one in processes.children(psutil.Process())]
        (tmp_path / "go").touch()
        assert any("qcgpj-manager" in line for line in found)
        return found

    return look


def test_a_script_and_its_variables_are_on_no_command_line(tmp_path, seen):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        script = f"{HOLD}; printf '%s' \"$TOKEN\"; echo ' hunter2'; env > a.env"
        future = executor.submit(ScriptTemplate, name="a", script=script, env={"TOKEN": SECRET})
        found = seen()
        future.raise_for_status(30)
    assert [line for line in found if "s3cret" in line or "hunter2" in line] == []
    assert (tmp_path / "a.out").read_text() == f"{SECRET} hunter2\n"
    assert "hunter2" not in (tmp_path / "a.env").read_text()  # what the script starts does not have the script


def test_nor_are_those_of_an_array_with_a_virtual_environment(tmp_path, seen):
    venv.create(tmp_path / "env", with_pip=False)
    execution = {
        "script": f'{HOLD}; echo "$$TOKEN" hunter2 ${{it}} "$$VIRTUAL_ENV"',
        "env": {"TOKEN": "s3cret"},
        "venv": str(tmp_path / "env"),
        "stdout": "a.${it}",
    }
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        future = executor.submit(lambda: json.dumps({"name": "a", "iteration": {"stop": 2}, "execution": execution}))
        found = seen()
        future.raise_for_status(30)
    assert [line for line in found if "s3cret" in line or "hunter2" in line] == []
    assert (tmp_path / "a.1").read_text() == f"s3cret hunter2 1 {tmp_path / 'env'}\n"


def test_nor_is_the_call_of_a_function(tmp_path, seen):
    def call(secret):
        (tmp_path / "begun").touch()
        while not (tmp_path / "go").exists():
            time.sleep(0.01)
        return secret

    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        future = executor.functions(env={"TOKEN": SECRET}).submit(call, "hunter2")
        found = seen()
        assert future.result(30) == "hunter2"
    assert [line for line in found if "s3cret" in line or "hunter2" in line] == []


def test_a_script_runs_as_it_did_on_the_command_line(tmp_path):
    scripts = {
        "heredoc": ("cat <<E\n$# $0\nE\n", 0, "0 bash\n"),
        "comment": ("#!/bin/bash\n# a comment\nexit 3", 3, ""),
        "exec": ("exec sh -c 'exit 7'", 7, ""),
        "trap": ("trap 'echo t' EXIT\nexit 4", 4, "t\n"),
        "unfinished": ("echo a\nif true; then", 2, "a\n"),
        "errexit": ("set -e\nfalse\necho no", 1, ""),
        "exported": ('set -a; A=1; printenv A; printenv QCG_PM_SCRIPT; echo "$?"', 0, "1\n1\n"),
    }
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        for name, (script, _, _) in scripts.items():
            executor.submit(ScriptTemplate, name=name, script=script)
    rows = {row["name"]: row["exit_code"] for row in executor.record()}
    assert rows == {name: code for name, (_, code, _) in scripts.items()}
    assert {name: (tmp_path / f"{name}.out").read_text() for name in scripts} == {
        name: printed for name, (_, _, printed) in scripts.items()
    }
