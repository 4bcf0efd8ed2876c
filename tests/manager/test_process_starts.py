"""How a job's process begins: what it finds, and what is said when it cannot begin."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qcg.pilotjob.executor_api import BasicTemplate, QCGPJExecutor
from qcg.pilotjob.executor_api._processes import spawning
from qcg.pilotjob.executor_api._processes.spawning import CannotStart, Order, Spawner

USUAL_SIGNALS = (1 << 31) - 1  # two of the others belong to the C library, which lets them be ignored
SHOW = """
import json, os, signal, sys
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(json.dumps({
    "files": sorted(int(name) for name in os.listdir("/proc/self/fd")),
    "ignored": int(status["SigIgn"], 16), "blocked": int(status["SigBlk"], 16),
    "group": os.getpgid(0) == os.getpid(), "wd": os.getcwd(), "arguments": sys.argv[1:], "env": dict(os.environ),
}))
"""


@pytest.fixture(params=["the C library's way", "Python's way"])
def way(request, monkeypatch):
    """Both ways in which a process is started: the second where the first is not there, or has not worked."""
    monkeypatch.setattr(spawning, "available", request.param == "the C library's way")
    return request.param


def run(order):
    pid = Spawner(dict(os.environ, KEPT="kept", GONE="gone")).spawn(order)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_what_a_process_finds(way, tmp_path):
    (tmp_path / "in").write_text("something")
    command = [sys.executable, "-c", SHOW, "a b", "$x\\'\"", "\udce4ü"]
    env = {"NEW": "new\nline", "GONE": None, "ODD": "\udce4"}
    files = {name: str(tmp_path / name) for name in ("stdin", "stdout", "stderr")}
    Path(files["stdin"]).write_text("")
    assert run(Order(command, str(tmp_path), env, files)) == 0
    found = json.loads(Path(files["stdout"]).read_text())
    assert found["files"] == [0, 1, 2, 3]  # the last one is that of the look
    python_ignores = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert found["ignored"] & ~python_ignores & USUAL_SIGNALS == 0
    assert found["blocked"] == 0
    assert found["group"]
    assert found["wd"] == str(tmp_path)
    assert found["arguments"] == command[3:]
    assert {name: found["env"].get(name) for name in ("KEPT", "GONE", *env)} == {**env, "KEPT": "kept"}


def test_signals_that_python_ignores_are_not_ignored_by_jobs(way, tmp_path):
    out = tmp_path / "out"
    assert run(Order(["grep", "SigIgn", "/proc/self/status"], str(tmp_path), {}, {"stdout": str(out)})) == 0
    assert int(out.read_text().split()[1], 16) & USUAL_SIGNALS == 0


def test_output_and_errors_in_one_file(way, tmp_path):
    both = str(tmp_path / "both")
    Path(both).write_text("what was there before")
    script = "echo one; echo two >&2; echo three"
    assert run(Order(["/bin/sh", "-c", script], str(tmp_path), {}, {"stdout": both, "stderr": both})) == 0
    assert Path(both).read_text() == "one\ntwo\nthree\n"


def test_programs_are_looked_for_where_the_job_looks(way, tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "program").write_text(f"#!/bin/sh\necho {name} > found\n")
    (tmp_path / "second" / "program").chmod(0o755)
    paths = f"{tmp_path}/first:{tmp_path}/second"
    assert run(Order(["program"], str(tmp_path), {"PATH": paths}, {})) == 0
    assert (tmp_path / "found").read_text() == "second\n"
    assert run(Order(["./program"], str(tmp_path / "second"), {}, {})) == 0
    assert (tmp_path / "second" / "found").exists()
    (tmp_path / "second" / "found").unlink()
    assert run(Order(["program"], str(tmp_path / "second"), {"PATH": "."}, {})) == 0
    assert (tmp_path / "second" / "found").exists()


@pytest.mark.parametrize(
    ("order", "said", "code"),
    [
        ((["/no/such"], "", {}), "no program '/no/such'", 127),
        ((["no-such-program"], "", {}), "no program 'no-such-program'", 127),
        ((["./data"], "", {}), "cannot start './data': Permission denied", 126),
        ((["./empty"], "", {}), "cannot start './empty': Exec format error", 126),
        ((["true"], "missing", {}), "no working directory", 127),
        ((["true"], "", {"stdin": "missing"}), "cannot open stdin", 126),
        ((["true"], "", {"stdout": "missing/out"}), "cannot open stdout", 126),
        ((["true", "a\0b"], "", {}), "null byte", 126),
    ],
)
def test_what_is_said_when_a_process_cannot_begin(way, tmp_path, order, said, code):
    command, cwd, files = order
    (tmp_path / "data").write_text("data")
    (tmp_path / "empty").write_text("neither a program nor a script")
    (tmp_path / "empty").chmod(0o755)
    files = {name: str(tmp_path / path) for name, path in files.items()}
    with pytest.raises(CannotStart) as caught:
        run(Order(command, str(tmp_path / cwd), {}, files))
    assert said in str(caught.value)
    assert caught.value.exit_code == code


def held_template():
    return "{'name': 'held', 'execution': {'exec': '${exec}', 'args': ['-'], 'stdin': 'gate', 'stdout': '${stdout}'}}"


def test_a_start_that_hangs_holds_up_no_other(tmp_path):
    os.mkfifo(tmp_path / "gate")
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        held = executor.submit(held_template, exec="cat", stdout="out")
        others = [executor.submit(BasicTemplate, name=f"n{number}", exec="true") for number in range(20)]
        assert all(other.result(20) for other in others)
        assert held.status() == {"held": "EXECUTING"}
        (tmp_path / "gate").write_text("through")
        assert held.result(20) == {"held": "SUCCEED"}
    assert (tmp_path / "out").read_text() == "through"


def test_a_cancel_before_there_is_a_process_is_not_lost(tmp_path):
    os.mkfifo(tmp_path / "gate")
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        held = executor.submit(held_template, exec="cat", stdout="out")
        wanted = {"held": "EXECUTING"}
        deadline = time.monotonic() + 20
        while held.status() != wanted:
            assert time.monotonic() < deadline
        with subprocess.Popen(
            ["/bin/sh", "-c", "sleep 0.1; exec 3<> gate; read line"], cwd=tmp_path, stdin=subprocess.PIPE
        ):  # what it waits for comes later, in the time that a start has to return, and does not end before it
            assert held.cancel()
        assert executor.submit(BasicTemplate, name="next", exec="true").result(20) == {"next": "SUCCEED"}
    assert held.status() == {"held": "CANCELED"}


def test_hundreds_of_jobs_that_end_at_once_are_all_collected(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=200) as executor:
        script = "until [ -e go ]; do sleep 0.05; done; exit 7"
        futures = [
            executor.submit(BasicTemplate, name=f"n{number}", exec="/bin/sh", args=["-c", script])
            for number in range(100)
        ]
        Path(tmp_path, "go").touch()
        assert [future.result(60) for future in futures] == [{f"n{number}": "FAILED"} for number in range(100)]
        assert {next(iter(future.info().values()))["runtime"]["exit_code"] for future in futures} == {"7"}
