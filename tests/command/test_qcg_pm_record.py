"""``qcg-pm-record``, run as a user would."""

import csv
import importlib.util
import io
import json
import os
import subprocess
import sys
from concurrent.futures import wait
from datetime import datetime

import pytest

from qcg.pilotjob.executor_api import BasicTemplate, IterationTemplate, QCGPJExecutor, RunRow, ScriptTemplate

pytestmark = pytest.mark.skipif(importlib.util.find_spec("typer") is None, reason="typer is not installed")

_BOOT = "from qcg.pilotjob.executor_api._command.record import main; main()"


@pytest.fixture(name="command")
def fixture_command(tmp_path):
    """Run the command in the test's directory; returns the completed process."""

    def run(*arguments, code=0, boot=_BOOT):
        completed = subprocess.run(
            [sys.executable, "-c", boot, *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert completed.returncode == code, completed.stdout + completed.stderr
        assert "Traceback" not in completed.stderr
        return completed

    return run


@pytest.fixture
def ended(tmp_path):
    """A run that has ended, in `study`: a job that succeeds, one that fails, one after that, an array."""
    with QCGPJExecutor(wd=tmp_path / "study", resources="here:2") as executor:
        executor.submit(ScriptTemplate, name="good", script="sleep 0.1")
        bad = executor.submit(ScriptTemplate, name="bad", script='echo "so, it \\"is\\"" >&2; exit 3', stderr="bad.err")
        executor.submit(ScriptTemplate, name="after", script="true", after=[bad])
        executor.submit(IterationTemplate, name="array", start=0, stop=2, exec="true")
    return tmp_path / "study"


def states(rows):
    return {row["name"] + (f":{row['iteration']}" if row["iteration"] != "" else ""): row["state"] for row in rows}


def test_a_summary_of_what_is_here(command, ended, tmp_path):
    said = command(ended).stdout
    assert said.startswith("jobs:        5 (1 FAILED, 1 OMITTED, 3 SUCCEED)\n")
    assert '  bad: exit code 3; so, it "is"\n' in said
    assert said.count("  SUCCEED\n") + said.count("  FAILED\n") == 4  # of what ran the slowest
    assert command(ended, "--slowest", 1).stdout.count("  SUCCEED\n") == 1
    assert "slowest" not in command(ended, "--slowest", 0).stdout
    (run,) = ended.glob(".qcgpjm-service-*")
    run.rename(tmp_path / run.name)
    assert command().stdout == said
    assert command(tmp_path / run.name, tmp_path).stdout == said


def test_rows_for_programs(command, ended):
    (run,) = map(str, ended.glob(".qcgpjm-service-*"))
    rows = list(csv.DictReader(io.StringIO(command(ended, "--rows", "csv").stdout)))
    assert list(rows[0]) == list(RunRow.__annotations__)
    assert states(rows) == {
        "good": "SUCCEED", "bad": "FAILED", "after": "OMITTED", "array:0": "SUCCEED", "array:1": "SUCCEED",
    }  # fmt: skip
    bad = next(row for row in rows if row["name"] == "bad")
    assert (bad["exit_code"], bad["stderr"], bad["run"]) == ("3", str(ended / "bad.err"), run)
    assert (bad["nodes"], bad["cores"]) == ("here", "1")
    assert bad["core_numbers"] in ("here[0]", "here[1]")
    assert datetime.fromisoformat(bad["submitted"]) <= datetime.fromisoformat(bad["started"])
    lines = [json.loads(line) for line in command(ended, "--rows", "jsonl").stdout.splitlines()]
    assert [line["name"] for line in lines] == [row["name"] for row in rows]
    line = next(line for line in lines if line["name"] == "bad")
    assert (line["iteration"], line["exit_code"], line["nodes"]) == (None, 3, ["here"])
    assert line["core_seconds"] == line["seconds"] > 0
    assert datetime.fromisoformat(line["ended"]) == datetime.fromisoformat(bad["ended"])


def test_rows_for_people(command, ended):
    head, *lines = command(ended, "--rows", "table").stdout.splitlines()
    assert head.split() == ["JOB", "STATE", "EXIT", "STARTED", "SECONDS", "CORES", "NODES", "REASON"]
    assert len(lines) == 5
    bad = next(line for line in lines if line.startswith("bad "))
    assert bad[head.index("STATE") :].startswith("FAILED")
    assert bad.endswith('so, it "is"')
    after = next(line for line in lines if line.startswith("after "))
    assert after.split(maxsplit=7) == [
        "after",
        "OMITTED",
        "-",
        "-",
        "-",
        "0",
        "-",
        "it was to come after 'bad', which is FAILED",
    ]


def test_rows_in_a_state(command, ended):
    table = command(ended, "--state", "failed,OMITTED").stdout.splitlines()
    assert [line.split()[0] for line in table[1:]] == ["bad", "after"]
    rows = command(ended, "--state", "SUCCEED", "--rows", "jsonl").stdout.splitlines()
    assert len(rows) == 3
    assert command(ended, "--state", "CANCELED", "--rows", "csv").stdout.count("\n") == 1


def test_while_it_goes_on_and_of_several_directories(command, ended, tmp_path, wait_until):
    with QCGPJExecutor(wd=tmp_path / "other", resources=1) as executor:
        wait([executor.submit(BasicTemplate, name="done", exec="true")])
        executor.submit(ScriptTemplate, name="runs", script=f"until [ -e {tmp_path}/go ]; do sleep 0.01; done")
        wait_until(lambda: len(executor.qcgpj_manager.list()) == 2)
        rows = list(csv.DictReader(io.StringIO(command(ended, tmp_path / "other", "--rows", "csv").stdout)))
        table = command("other", "study", "--rows", "table").stdout.splitlines()
        (tmp_path / "go").touch()
    assert len(rows) == 7
    assert len({row["run"] for row in rows}) == 2
    assert table[0].split()[-2:] == ["RUN", "REASON"]
    assert {line[table[0].index("RUN") :].partition("/")[0] for line in table[1:]} == {"study", "other"}
    assert {name: states(rows)[name] for name in ("good", "done", "runs")} == {
        "good": "SUCCEED", "done": "SUCCEED", "runs": "UNFINISHED",
    }  # fmt: skip


@pytest.mark.parametrize("rows", ["table", "csv", "jsonl"])
def test_rows_of_names_that_cannot_be_shown(command, tmp_path, rows):
    for wd in (b"w\xff",) if rows == "csv" else (b"w\xff", b"v\x1b"):  # paths in CSV are as they are
        directory = tmp_path / os.fsdecode(wd)
        directory.mkdir()
        entry = {"name": "a\udcff\x1b", "state": "FAILED", "messages": "\x9b\udcfe", "runtime": {"stderr": "e\udcff"}}
        (directory / "jobs.report").write_text(json.dumps(entry) + "\n")
    said = command("--rows", rows, *tmp_path.glob("*")).stdout
    assert said.replace("\n", "").isprintable()
    name = json.loads(said.split("\n")[0])["name"] if rows == "jsonl" else said
    assert "a\\udcff\\x1b" in name


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_pictures(command, ended, tmp_path):
    said = command(ended, "--timeline", "t.html", "--utilisation", "u.svg").stdout
    assert said.startswith("jobs: ")
    assert json.dumps('so, it "is"')[1:-1] in (tmp_path / "t.html").read_text()
    assert "<svg" in (tmp_path / "u.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "'nowhere' has no record of a run"),
        ([], "'.' has no record of a run"),
        (
            ["study", "--state", "failed,lost"],
            "--state 'failed,lost': give SUCCEED, FAILED, CANCELED, OMITTED or UNFINISHED",
        ),
        (["study", "--rows", "xml"], "'xml' is not one of"),
        (["study", "--slowest", "-1"], "slowest is -1"),
        (["study", "--timeline", "t.doc"], ".html"),
        (["study", "--timeline", "no/where.svg"], "no/where.svg"),
    ],
)
def test_what_is_wrong_is_told(command, ended, arguments, said):
    if "--timeline" in arguments:
        pytest.importorskip("matplotlib")
    completed = command(*arguments, code=2)
    assert said in " ".join(completed.stderr.replace("│", " ").split())
    assert completed.stdout == ""


@pytest.mark.parametrize(("module", "extra"), [("typer", "command"), ("matplotlib", "pictures")])
def test_what_is_not_installed_is_named(command, ended, module, extra):
    boot = f"import sys; sys.modules[{module!r}] = None; sys.argv[0] = '/bin/qcg-pm-record'; {_BOOT}"
    said = command(ended, "--timeline", "t.png", code=1 if module == "typer" else 2, boot=boot).stderr
    assert f"pip install 'qcg-pilotjob-executor-api[{extra}]'" in said


def test_the_reader_of_a_pipe_may_leave(command, ended, tmp_path):
    pipe = f'"$0" -c "{_BOOT}" "$1" --rows csv | head -n 1'
    completed = subprocess.run(
        ["sh", "-c", pipe, sys.executable, str(ended)], capture_output=True, text=True, timeout=60, check=False
    )
    assert completed.stdout.startswith("name,iteration")
    assert "Traceback" not in completed.stderr
