"""``qcg-pm-map``, run as a user would."""

import csv
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import processes
import psutil
import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("typer") is None, reason="typer is not installed")

_TEMPLATE = """{
    "name": "${name}",
    "execution": {"script": "echo ${T} ${rho}", "stdout": "${name}.out", "stderr": "${name}.err"},
    "resources": {"numCores": ${cores}},
    "defaults": {"cores": 1, "rho": 0}
}"""


def _command(*arguments):
    boot = "from qcg.pilotjob.executor_api._command.map import main; main()"
    return [sys.executable, "-c", boot, *map(str, arguments)]


@pytest.fixture
def command(tmp_path):
    """Run the command in the test's directory; returns the completed process."""

    def run(*arguments, code=0):
        completed = subprocess.run(
            _command(*arguments), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert completed.returncode == code, completed.stdout + completed.stderr
        return completed

    _write(tmp_path, "echo ${T} ${rho}")
    return run


def _write(directory, script):
    """Write the template with another script; ``$QCG...`` is the shell's."""
    text = _TEMPLATE.replace("echo ${T} ${rho}", script.replace("$QCG", "$$QCG"))
    (directory / "t.json").write_text(text)


@pytest.fixture
def started(tmp_path):
    """Start the command; it is ended after the test."""
    processes = []

    def start(*arguments):
        processes.append(subprocess.Popen(_command(*arguments), cwd=tmp_path, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def _results(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_job_for_each_row_and_a_table_of_results(command, tmp_path):
    (tmp_path / "p.csv").write_text("T,rho\n0.7,0.1\n0.8,0.2\n")
    completed = command("t.json", "p.csv", "--wd", "study")
    assert "2 jobs: 2 SUCCEED" in completed.stderr
    assert (tmp_path / "study" / "run1.out").read_text() == "0.8 0.2\n"
    rows = _results(tmp_path / "study" / "results.csv")
    assert [(row["T"], row["name"], row["state"], row["exit_code"]) for row in rows] == [
        ("0.7", "run0", "SUCCEED", "0"),
        ("0.8", "run1", "SUCCEED", "0"),
    ]
    assert all(0 <= float(row["seconds"]) < 60 for row in rows)


def test_a_grid_is_exact_and_includes_its_end(command, tmp_path):
    completed = command("t.json", "--grid", "T=0.7:1.5:0.1", "--grid", "rho=a,b", "--name", "T${T}.${rho}", "--dry-run")
    jobs = [json.loads(line) for line in completed.stdout.splitlines()]
    values = ["0.7", "0.8", "0.9", "1.0", "1.1", "1.2", "1.3", "1.4", "1.5"]
    assert [job["name"] for job in jobs] == [f"T{value}.{rho}" for value in values for rho in "ab"]
    assert jobs[0]["execution"]["script"].endswith("echo 0.7 a")
    assert not list(tmp_path.glob("**/.qcgpjm*"))


def test_rows_of_json_and_of_a_grid_are_crossed(command, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"rho": 1, "name": "one"}\n\n{"rho": 2, "name": "two"}\n')
    jobs = command("t.json", "p.jsonl", "--set", "T=3", "--dry-run").stdout.splitlines()
    assert [json.loads(job)["name"] for job in jobs] == ["one", "two"]
    assert "two jobs would be named 'one'" in command("t.json", "p.jsonl", "--grid", "T=1,2", code=2).stderr


def test_a_failure_is_in_the_exit_code_and_in_the_table(command, tmp_path):
    _write(tmp_path, "echo bad >&2; exit ${T}")
    completed = command("t.json", "--grid", "T=1,2", code=1)
    assert "2 jobs: 2 FAILED" in completed.stderr
    assert "SUCCEED" not in (tmp_path / "results.csv").read_text()
    assert _results(tmp_path / "results.csv")[1]["message"]


def test_the_results_quote_no_lines_from_a_file_that_jobs_share(command, tmp_path):
    _write(tmp_path, "echo bad ${T} >&2; exit ${T}")
    (tmp_path / "t.json").write_text((tmp_path / "t.json").read_text().replace("${name}.err", "stderr"))
    command("t.json", "--grid", "T=1,2", code=1)
    assert [(row["exit_code"], row["message"]) for row in _results(tmp_path / "results.csv")] == [("1", ""), ("2", "")]


def test_what_failed_is_run_again_and_nothing_else(command, tmp_path):
    script = f"echo x >> {tmp_path}/ran.$QCG_PM_EXEC_API_JOB_ID; [ -e {tmp_path}/go ] || [ ${{T}} = 1 ]"
    _write(tmp_path, script)
    command("t.json", "--grid", "T=1,2,3", "--wd", "study", code=1)
    (tmp_path / "go").touch()
    completed = command("t.json", "--grid", "T=1,2,3,4", "--wd", "study", "--retry-failed")
    assert "4 jobs: 4 SUCCEED" in completed.stderr
    assert [len((tmp_path / f"ran.run{n}").read_text().split()) for n in range(4)] == [1, 2, 2, 1]
    command("t.json", "--grid", "T=1,2,3,4", "--wd", "study", "--resume")
    assert [len((tmp_path / f"ran.run{n}").read_text().split()) for n in range(4)] == [1, 2, 2, 1]


def test_a_study_goes_on_after_a_crash(command, started, tmp_path, wait_until):
    script = f"echo x >> {tmp_path}/ran.$QCG_PM_EXEC_API_JOB_ID; [ -e {tmp_path}/go ] || [ ${{T}} = 0 ] || sleep 1000"
    _write(tmp_path, script)
    arguments = ["t.json", "--grid", "T=0:5:1", "--wd", "study", "--resources", "1"]
    process = started(*arguments)
    wait_until((tmp_path / "ran.run1").exists)
    process.kill()
    process.wait()
    (tmp_path / "go").touch()
    completed = command(*arguments, "--resume")
    assert "6 jobs: 6 SUCCEED" in completed.stderr
    assert (tmp_path / "ran.run0").read_text() == "x\n"


def _has_submitted(directory, jobs):
    """Whether the manager of the run there has so many; that one of them has begun tells nothing of the next."""
    return sum(path.read_text().count("\n") for path in directory.glob(".qcgpjm-service-*/track.reqs")) == jobs


def test_an_interrupted_study_leaves_a_table(started, command, tmp_path, wait_until):
    _write(tmp_path, f"touch {tmp_path}/began; sleep 1000")
    process = started("t.json", "--grid", "T=1,2", "--name", "T$T")
    wait_until(lambda: (tmp_path / "began").exists() and _has_submitted(tmp_path, 2))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert {row["state"] for row in _results(tmp_path / "results.csv")} == {"CANCELED"}


@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_an_interrupt_between_two_jobs_leaves_a_table_of_those_before(tmp_path, options):
    _write(tmp_path, "sleep 100${T}")
    boot = """
        import signal
        from qcg.pilotjob.executor_api._command import map as main
        submit = main.QCGPJExecutor.submit
        def interrupted(executor, template, row):
            if row["name"] == "run2":
                signal.raise_signal(signal.SIGINT)
            return submit(executor, template, row)
        main.QCGPJExecutor.submit = interrupted
        main.main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(boot), "t.json", "--grid", "T=0:4:1", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert [(row["name"], row["state"]) for row in _results(tmp_path / "results.csv")] == [
        ("run0", "CANCELED"),
        ("run1", "CANCELED"),
    ]


def test_a_run_that_ends_while_its_watcher_connects(tmp_path):
    boot = """
        from qcg.pilotjob.executor_api import *
        from qcg.pilotjob.executor_api._command import map as main
        run = QCGPJExecutor(wd="study", resources=2)
        run.submit(ScriptTemplate, name="bad", script="exit 3").result()
        def record_of(directory, of=RunRecord.of):
            run.shutdown()  # in the moment in which it is connected
            return of(directory)
        main.RunRecord.of = record_of
        main._watch("study")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(boot)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.splitlines()[0] == "1 jobs: 1 FAILED"


def test_a_run_that_has_ended_is_told_to_its_watcher(command, started, tmp_path, wait_until):
    command("t.json", "--grid", "T=1,2", "--wd", "good")
    assert command("--watch", "good").stderr == "2 jobs: 2 SUCCEED\n"
    _write(tmp_path, f"touch {tmp_path}/began; sleep 1000")
    process = started("t.json", "--grid", "T=1,2", "--name", "T$T", "--wd", "crashed", "--resources", "1")
    wait_until(lambda: (tmp_path / "began").exists() and _has_submitted(tmp_path / "crashed", 2))
    manager = _manager_of(process)
    manager.kill()
    process.communicate(timeout=30)
    crashed = command("--watch", "crashed", code=1).stderr
    assert re.search("manager .*crashed.* has ended, and resume= .*\n2 jobs: 2 UNFINISHED\n", crashed)


def _manager_of(process):
    of_run = processes.children(psutil.Process(process.pid))
    return next(each for each in of_run if "qcgpj-manager" in processes.words(each))


def test_a_run_of_somebody_else_is_watched(started, command, tmp_path, wait_until):
    _write(tmp_path, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; exit ${{T}}")
    started("t.json", "--grid", "T=0,1", "--wd", "study", "--resources", "2")
    wait_until(lambda: _has_submitted(tmp_path / "study", 2))
    watching = started("--watch", "study")
    deadline = time.monotonic() + 1
    wait_until(lambda: time.monotonic() > deadline or watching.poll() is not None)
    assert watching.poll() is None
    (tmp_path / "go").touch()
    _, said = watching.communicate(timeout=30)
    assert "2 jobs: 1 FAILED, 1 SUCCEED" in said
    assert watching.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a template"),
        (["nothing.json"], "is no file and none of the templates"),
        (["t.json"], "'T' has no value"),
        (["t.json", "--grid", "T"], "NAME=FIRST:LAST:STEP"),
        (["t.json", "--grid", "T=1:2:-1"], "does not lead from 1 to 2"),
        (["t.json", "--grid", "T=1:x:1"], "write numbers"),
        (["t.json", "--grid", "T=1", "--grid", "T=2"], "twice"),
        (["t.json", "--set", "T"], "NAME=VALUE"),
        (["t.json", "nothing.csv"], "nothing.csv"),
        (["t.json", "wrong.csv"], "wrong.csv, line 3"),
        (["t.json", "wrong.jsonl"], "wrong.jsonl, line 2"),
        (["t.json", "--grid", "T=1,2", "--name", "one"], "give --name"),
        (["t.json", "--grid", "T=1", "--name", "${what}"], "no parameter"),
        (["t.json", "--grid", "T=1", "--set", "cores=0"], "cores"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(command, tmp_path, arguments, said):
    (tmp_path / "wrong.csv").write_text("T,rho\n1,2\n3\n")
    (tmp_path / "wrong.jsonl").write_text('{"T": 1}\n[2]\n')
    completed = command(*arguments, code=2)
    assert said.lower() in " ".join(completed.stderr.split()).lower()
    assert "Traceback" not in completed.stderr
    assert not list(tmp_path.glob("**/.qcgpjm*"))


@pytest.mark.skipif(importlib.util.find_spec("psij") is None, reason="psij-python is not installed")
def test_a_study_in_an_allocation_of_its_own(command, tmp_path):
    completed = command("t.json", "--grid", "T=1,2", "--wd", "study", "--scheduler", "local", "--cores-per-node", 1)
    assert "2 jobs: 2 SUCCEED" in completed.stderr
    assert list(tmp_path.glob("study/.qcgpjm-service-*/pilot.1.jsonl"))
    said = command("t.json", "--grid", "T=1", "--scheduler", "none", code=2).stderr
    assert "give one of slurm" in said


def test_the_templates_are_listed(command):
    assert "ScriptTemplate" in command("--list-templates").stdout
    assert os.linesep in command("--help").stdout


def test_what_nothing_takes_is_refused(command):
    assert "did you mean 'rho'?" in command("t.json", "--grid", "T=1", "--set", "rhoo=2", code=2).stderr
    assert "write NAME=VALUE" in command("t.json", "--grid", "T=1", "--set", "a(=1", code=2).stderr
    assert "no placeholder 'seed'" in command("t.json", "--grid", "T=1", "--grid", "seed=1,2", code=2).stderr
    command("t.json", "--grid", "T=1", "--grid", "seed=1,2", "--name", "s$seed", "--dry-run")
    command("t.json", "--grid", "T=1", "--grid", "seed=1,2", "--name", "s${seed}", "--dry-run")


def test_a_parameter_that_is_missing_is_named_with_those_there_are(command):
    said = command("t.json", "--grid", "rho=1", code=2).stderr
    assert "the placeholder 'T' has no value; there are rho, name" in said
    assert "submit()" not in said


def test_a_column_called_n_is_not_the_number_of_the_row(command, tmp_path):
    (tmp_path / "p.csv").write_text("T,n\n1,100\n2,200\n")
    shown = command("t.json", "p.csv", "--name", "run${n}", "--dry-run").stdout.splitlines()
    assert [json.loads(line)["name"] for line in shown] == ["run100", "run200"]


def test_to_go_on_where_nothing_was_is_to_begin(command, tmp_path):
    said = command("t.json", "--grid", "T=1,2", "--wd", "new", "--resume").stderr
    assert "2 SUCCEED" in said
    assert "--resume" not in said
    assert "--resume goes on" in command("t.json", "--grid", "T=1,2", "--wd", "new").stderr


def test_the_table_may_be_in_a_directory_of_its_own(command, tmp_path):
    command("t.json", "--grid", "T=1", "--results", "tables/r.csv")
    assert _results(tmp_path / "tables" / "r.csv")


def test_a_template_that_is_no_utf_8_is_told(command, tmp_path):
    (tmp_path / "t.json").write_bytes('{"name": "a",\n "execution": {"exec": "é"}}'.encode("latin-1"))
    assert "t.json: line 2, column 25 of the template: this is no UTF-8" in command("t.json", code=2).stderr


def test_a_file_that_is_not_there_is_named_once(command):
    assert command("t.json", "none.csv", code=2).stderr == "none.csv: No such file or directory\n"
