"""The tables of ``qcg-pm-map``: what is in them is what the jobs had, or the table is refused."""

import csv
import importlib.util
import json
import subprocess
import sys
import textwrap

import pytest

from qcg.pilotjob.executor_api._command.parameters import read_rows

pytestmark = pytest.mark.skipif(importlib.util.find_spec("typer") is None, reason="typer is not installed")

_TEMPLATE = {
    "name": "${name}",
    "execution": {"exec": "sh", "args": ["-c", "echo ${T} ${rho} >> ${name}.ran; [ ${T} != bad ]"]},
    "defaults": {"rho": "0"},
}


@pytest.fixture(name="command")
def fixture_command(tmp_path):
    """Run the command in the test's directory; returns the completed process."""
    (tmp_path / "t.json").write_text(json.dumps(_TEMPLATE))

    def run(*arguments, code=0, boot=""):
        source = f"{boot}\nfrom qcg.pilotjob.executor_api._command.map import main; main()"
        completed = subprocess.run(
            [sys.executable, "-c", source, "t.json", *map(str, arguments)],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert completed.returncode == code, completed.stdout + completed.stderr
        assert "Traceback" not in completed.stderr
        completed.stderr = " ".join(completed.stderr.split())  # as long as the directories' names are, lines break
        return completed

    return run


def _results(directory):
    with (directory / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _ran(directory):
    return {path.stem: path.read_text().split("\n")[:-1] for path in directory.glob("*.ran")}


def test_a_row_that_is_put_in_between_is_not_taken_for_another_one(command, tmp_path):
    table = tmp_path / "p.csv"
    table.write_text("T\n1\n2\n")
    command("p.csv", "--wd", "w")
    before = (tmp_path / "w" / "results.csv").read_text()
    table.write_text("T\n100\n1\n2\n")
    said = command("p.csv", "--wd", "w", "--resume", code=2).stderr
    assert "run0: T was '1' and is '100'" in said
    assert "run0, run1" in said
    assert (tmp_path / "w" / "results.csv").read_text() == before
    command("p.csv", "--wd", "w", "--retry-failed", code=2)
    assert _ran(tmp_path / "w") == {"run0": ["1 0"], "run1": ["2 0"]}


def test_rows_that_come_behind_the_earlier_ones_are_run(command, tmp_path):
    table = tmp_path / "p.csv"
    table.write_text("T\n1\n")
    command("p.csv", "--wd", "w")
    table.write_text("T\n1\n2\n")
    command("p.csv", "--wd", "w", "--resume")
    assert _ran(tmp_path / "w") == {"run0": ["1 0"], "run1": ["2 0"]}
    assert [(row["T"], row["name"]) for row in _results(tmp_path / "w")] == [("1", "run0"), ("2", "run1")]


@pytest.mark.parametrize("changed", [["--set", "rho=7"], ["--grid", "rho=0"]])
def test_other_parameters_than_those_of_the_table_count_too(command, changed):
    command("--grid", "T=1,2", "--wd", "w")
    said = command("--grid", "T=1,2", *changed, "--wd", "w", "--resume", code=2).stderr
    assert "rho was None" in said


def test_a_failed_row_may_get_other_parameters_when_it_runs_again(command, tmp_path):
    command("--grid", "T=1,bad", "--wd", "w", code=1)
    command("--grid", "T=1,3", "--wd", "w", "--resume", code=2)
    command("--grid", "T=1,3", "--wd", "w", "--retry-failed")
    assert [(row["T"], row["state"]) for row in _results(tmp_path / "w")] == [("1", "SUCCEED"), ("3", "SUCCEED")]
    assert _ran(tmp_path / "w") == {"run0": ["1 0"], "run1": ["bad 0", "3 0"]}
    command("--grid", "T=1,3", "--wd", "w", "--resume")
    command("--grid", "T=1,bad", "--wd", "w", "--retry-failed", code=2)


def test_another_template_and_rows_left_out_are_told(command, tmp_path):
    command("--grid", "T=1,2,3", "--wd", "w")
    (tmp_path / "t.json").write_text(json.dumps(_TEMPLATE).replace("echo", "echo now"))
    said = command("--grid", "T=1,2", "--wd", "w", "--resume").stderr
    assert "the template was another one when these jobs were submitted, which is kept: run0, run1" in said
    assert "no row for are not in the results: run2" in said


def test_a_run_of_a_program_is_not_gone_on_with(command, tmp_path):
    boot = """
        from qcg.pilotjob.executor_api import *
        with QCGPJExecutor(wd="w") as executor: executor.submit(ParallelTemplate, name="run0", exec="true")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(boot)], cwd=tmp_path, check=True, timeout=60)
    said = command("--grid", "T=1", "--wd", "w", "--resume", code=2).stderr
    assert "not submitted by this command, and their parameters are not known: run0" in said
    command("--grid", "T=1", "--name", "T$T", "--wd", "w", "--resume")


def test_a_row_of_several_jobs_is_followed_by_their_names(command, tmp_path):
    jobs = [{**_TEMPLATE, "name": "${name}-" + part} for part in "ab"]
    for job in jobs:
        del job["defaults"]
    text = json.dumps(jobs).replace("${rho}", "0")
    (tmp_path / "t.json").write_text(text)
    command("--grid", "T=1,2", "--wd", "w")
    command("--grid", "T=1,2,3", "--wd", "w", "--resume")
    assert _ran(tmp_path / "w") == {f"run{n}": [f"{n + 1} 0"] * 2 for n in range(3)}


def test_a_torn_line_is_that_of_a_row_that_nothing_is_known_of(command, tmp_path):
    command("--grid", "T=1,2", "--wd", "w")
    (study,) = tmp_path.glob("w/.qcgpjm-service-*/study.jsonl")
    lines = study.read_text().splitlines(keepends=True)
    study.write_text(lines[0] + lines[1][:20])
    assert "not known: run1" in command("--grid", "T=1,2", "--wd", "w", "--resume", code=2).stderr
    command("--grid", "T=1", "--wd", "w", "--resume")


@pytest.mark.parametrize(
    "line", ['{"row": []}', '{"row": "run0", "parameters": 3}', '{"row": "run0", "jobs": 5}', "[" * 100_000, "\xff\0"]
)
def test_a_line_that_this_command_did_not_write_is_passed_over(command, tmp_path, line):
    command("--grid", "T=1", "--wd", "w")
    (study,) = tmp_path.glob("w/.qcgpjm-service-*/study.jsonl")
    study.write_bytes(study.read_bytes() + line.encode("latin-1") + b"\n")
    command("--grid", "T=1", "--wd", "w", "--resume")
    assert _ran(tmp_path / "w") == {"run0": ["1 0"]}


def test_jobs_of_one_name_are_refused_before_any_runs(command, tmp_path):
    (tmp_path / "t.json").write_text(json.dumps({**_TEMPLATE, "name": "same"}))
    assert "two jobs would be named 'same'" in command("--grid", "T=1,2", "--wd", "w", code=2).stderr
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("T,state\n1,gas\n", "'state' is a column of the results"),
        ("T,T\n1,2\n", "2 columns are named 'T'"),
        ("T, rho\n1, 0.5\n", "the name ' rho' has blanks around it; write 'rho'"),
        ("T,rhoo\n1,0.5\n", "did you mean 'rho'?"),
        ("T,density\n1,0.5\n", "no placeholder 'density'"),
        ("T,\n1,2\n", "the name '' can stand in no placeholder"),
        ("", "there are no rows"),
        ("T\n", "there are no rows"),
        ("\n\n", "there are no rows"),
        ("T;rho\tmu\n1;2\t3\n", "line 1: there are semicolons and tabs between the names of the columns"),
        ("T;rho\n1;0\n2;0,75\n", "line 3: rho is '0,75', a number with a decimal comma"),
        ("T\trho\n-1.000,5e3\t0\n", "line 2: T is '-1.000,5e3', a number with a decimal comma"),
        ("T\n0,7\n", "line 2: the row has 2 values, and the header 1 names (T); write numbers with a point"),
        ("T,rho\n1,2\n,\n", "line 3: all values of the row are empty"),
        ("T;rho\n1;2\n ; \n", "line 3: all values of the row are empty"),
        ("T,rho\n1,a\0b\n", "line 2: there is a NUL character"),
        ('T,rho\n1,"2\n2,3\n3,4\n', "p.csv, line 2"),
        ('T,rho\n1,"2\n2,3\n3,4"\n5,6\n', "line 2: a value goes on over 3 lines that look like rows"),
        ('T,rho\n1,"2\n2,"3"\n', "p.csv, line 2"),
        ("T,rho\n1,2\n3\n", "p.csv, line 3: the row has 1 values, and the header 2 names"),
        ("T,rho\n\n1,2\n3,4,5\n", "p.csv, line 4: the row has 3 values"),
        ('T,rho\n"1,2\n2,3\n3",4\n5,6\n', "line 2: a value goes on over 3 lines that look like rows"),
        ('T;rho\n1;"2\n2;3\n3;4"\n', "line 2: a value goes on over 3 lines that look like rows"),
        ('T\n"1\n2\n3"\n4\n', "line 2: a value goes on over 3 lines that look like rows"),
        ('T,rho\n1,5" pipe\n2,"5" pipe"\n', "line 3: ',' expected after '\"'; is a quote not closed there?"),
    ],
)
def test_a_table_that_is_not_what_it_seems_is_refused(command, tmp_path, table, said):
    (tmp_path / "p.csv").write_text(table)
    assert said in command("p.csv", "--wd", "w", code=2).stderr
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"T": 1, "T": 2}', "p.jsonl, line 1: 'T' is there 2 times"),
        ('{"T": 1}\n{"T": 2, "seconds": 3}', "line 2: 'seconds' is a column of the results"),
        ('{"T": 1, "rhoo": 2}', "did you mean 'rho'?"),
        ('{"T": 1, "rho ": 2}', "write 'rho'"),
        ("", "there are no rows"),
        ('{"T": 1, "name": 7}', "row 1: the name is 7; give text"),
        ("[" * 5000, "p.jsonl, line 1"),
    ],
)
def test_lines_of_json_are_refused_likewise(command, tmp_path, lines, said):
    (tmp_path / "p.jsonl").write_text(lines)
    assert said in command("p.jsonl", code=2).stderr


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("T,rho\n1,2\nä,3\n".encode("latin-1"), "line 3: byte 0xe4 is no UTF-8; save the file as UTF-8, or convert it"),
        ("T,rho\n1,2\n".encode("utf-16-le"), "line 1: there is a NUL character"),
        ("T,rho\n1,2\n".encode("utf-16")[:-1], "line 2: byte 0x0a is no UTF-16"),
    ],
)
def test_a_table_in_another_encoding_is_refused_with_its_line(command, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    assert f"{name}, {said}" in command(name, code=2).stderr


@pytest.mark.parametrize(
    "table",
    [
        "T;rho\n1;2.5\na b;x,y\n",
        "sep=;\nT;rho\n1;2.5\na b;x,y\n",
        "T\trho\r\n1\t2.5\r\na b\tx,y\r\n",
        "T|rho\n\n1|2.5\n   \na b|x,y\n",
        'T,rho\r\n1,2.5\r\na b,"x,y"\r\n',
        'T,rho\r1,2.5\ra b,"x,y"\r',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_table_as_spreadsheets_write_it_is_read(tmp_path, table, encoding):
    (tmp_path / "p.csv").write_bytes(table.encode(encoding))
    assert read_rows(tmp_path / "p.csv") == [{"T": "1", "rho": "2.5"}, {"T": "a b", "rho": "x,y"}]


@pytest.mark.parametrize("text", ["a\0b", "a\udcffb"])
def test_text_that_no_job_can_be_given_is_refused(command, tmp_path, text):
    (tmp_path / "p.jsonl").write_text(json.dumps({"T": "1"}) + "\n" + json.dumps({"T": "1", "_note": text}) + "\n")
    assert f"p.jsonl, line 2: '_note' is {text!r}, with a character" in command("p.jsonl", code=2).stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--grid", "T=1,2"], "'T' is given by a column and by --grid"),
        (["--set", "T=1"], "'T' is given by a column and by --set"),
        (["--grid", "rho=1", "--set", "rho=2"], "'rho' is given by --set and by --grid"),
        (["--set", "rho=1", "--set", "rho=2"], "--set names a parameter twice"),
        (["--set", "message=1"], "'message' is a column of the results"),
        (["--grid", "ended=1,2"], "'ended' is a column of the results"),
    ],
)
def test_a_parameter_that_is_given_twice_is_refused(command, tmp_path, options, said):
    (tmp_path / "p.csv").write_text("T\n1\n")
    assert said in command("p.csv", *options, code=2).stderr


def test_a_remark_stands_in_the_results_only(command, tmp_path):
    (tmp_path / "p.csv").write_text('T,_note\n1,"first, and\nlast"\n')
    command("p.csv", "--wd", "w")
    assert _results(tmp_path / "w")[0]["_note"] == "first, and\nlast"


def test_line_breaks_of_other_alphabets_are_part_of_a_value(command, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"T": "1", "_note": "a\u2028b"}\n')
    command("p.jsonl", "--wd", "w")
    assert _results(tmp_path / "w")[0]["_note"] == "a\u2028b"


def test_the_parameters_are_not_overwritten_by_the_results(command, tmp_path):
    (tmp_path / "p.csv").write_text("T\n1\n")
    assert "p.csv is the table of parameters" in command("p.csv", "--results", "p.csv", code=2).stderr
    assert (tmp_path / "p.csv").read_text() == "T\n1\n"


def test_an_error_when_jobs_have_run_is_not_one_of_the_options(command, tmp_path):
    (tmp_path / "w" / "results.csv").mkdir(parents=True)
    assert "1 SUCCEED; w/results.csv cannot be written: Is a directory" in command(
        "--grid", "T=1", "--wd", "w", code=1
    ).stderr  # fmt: skip
    boot = textwrap.dedent("""
        from qcg.pilotjob.executor_api._command import map as main
        def wait(futures):
            raise OSError("the disk has gone")
        main.wait = wait
    """)
    assert "the disk has gone" in command("--grid", "T=1", "--wd", "v", code=1, boot=boot).stderr
