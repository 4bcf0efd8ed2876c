"""``qcg-pm-template check``, run as a user would: all that is wrong, each with its place, and nothing that is good."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qcg.pilotjob.executor_api import BasicTemplate, IterationTemplate, ParallelTemplate, ScriptTemplate

pytestmark = pytest.mark.skipif(importlib.util.find_spec("typer") is None, reason="typer is not installed")

FILES = Path(__file__).parents[2] / "templates"
RUNS = '"execution": {"exec": "e"}'

# "¦" is where a problem is; it is taken out of the text. Problems are in the order of their places.
WRONG = {
    # syntax: the first
    "no-comma": ('{"name": "${name}"\n  ¦"execution": {"exec": "${exec}"}}', ["Expecting ',' delimiter"]),
    "no-colon": ('{"a": "${T} ${rho}", "execution" ¦{"exec": "e"}}', ["Expecting ':' delimiter"]),
    "name-without-quotes": ("{'name': '${n}', 'execution': {'exec': ¦date}}", ["'date' stands there without quotes"]),
    "call": ("{'name': '${n}', 'execution': ¦open('x')}", ["this is no literal"]),
    "python-bracket": (
        "{'name': '${name}',\n # it's ${a comment}\n 'execution': ['e'¦}}",
        ["closing parenthesis '}' does not match"],
    ),
    "never-closed": ('{"execution": {"exec": "e"}¦', ["neither JSON"]),
    "empty": ("¦", ["neither JSON (Expecting value"]),
    "dollar-outside": ('{"execution": {"exec": ¦$$}}', ["neither JSON"]),
    # placeholders: all
    "wrong-placeholders": (
        '{"name": "${a}¦${b c}", "execution": {"exec": "e", "args": [¦${-1}, "¦\\$x"]}, "wd": r"¦$y"}',
        [
            "'${' does not begin a placeholder: '${b c}\", \"execution\"'; write ${name}, or $${",
            "does not begin a placeholder",
            "a backslash stands before a '$'; write two",
            "'$y' stands in a raw string",
        ],
    ),
    "wrong-placeholder-and-more": (
        '¦{"name": "¦${a b}", ¦"exeqution": 1}',
        [
            "the job has no 'execution'",
            "does not begin a placeholder",
            "has the unknown key 'exeqution'; did you mean 'execution'?",
        ],
    ),
    "half-a-pair": ('{"execution": {"exec": "é${a}¦\\ud800"}}', ["half a surrogate pair"]),
    # keys
    "unknown-keys": (
        '{¦"T": "$T", ¦"resource": {}, "execution": {"exec": "e", ¦"arg": ["${a}"], ¦"zz": "${z}"}}',
        [
            "unknown key 'T'",
            "the job has the unknown key 'resource'; did you mean 'resources'?",
            "'arg'; did you mean 'args'?",
            "'zz'",
        ],
    ),
    "twice": (
        '{"execution": {"exec": "e", ¦"exec": "f"}, ¦"execution": {"exec": "g"}}',
        ["'exec' stands", "'execution'"],
    ),
    "no-execution": ('¦{"name": "a"}', ["the job has no 'execution'; write"]),
    "nothing-to-run": ('{"execution": ¦{"args": [], "wd": "${wd}"}}', ["execution has neither 'exec' nor 'script'"]),
    "both": (
        '{"execution": {¦"exec": "e", "script": "echo ${T}", ¦"args": ["${T}"]}}',
        ["has both 'script' and 'exec'", "has both 'script' and 'args'"],
    ),
    # values
    "name": ('{"name": ¦"my ${n}", ' + RUNS + "}", ["name 'my ${n}' contains ' '; use letters"]),
    "number": (
        '{"name": "${n}", ' + RUNS + ', "resources": {"numCores": ¦"two"}}',
        ["numCores is 'two'; write a whole"],
    ),
    "negative": (
        "{" + RUNS + ',\t"resources": {"numCores":\t¦-1}}',
        ["resources: numCores is -1; write a whole number"],
    ),
    "walltime": ("{" + RUNS + ', "resources": {"wt": ¦"1:00"}}', ["wt is '1:00', which may be minutes"]),
    "part-of-a-number": ("{" + RUNS + ', "resources": {"numCores": ¦"1${n}"}}', ["numCores is '1${n}'"]),
    "sizes": (
        "{"
        + RUNS
        + ', "resources": {"numCores": ¦{"min": 4, "max": 2}, "numNodes": {¦"exact": 1, "min": 2, "max": 2}}}',
        ["goes from 4 to 2", "has 'exact' beside a range"],
    ),
    "all-at-once": (
        """{
  "execution": {"exec": "${e}", "stdout": ¦5, "args": ["${a}", ¦null, ¦{}],
                "env": {¦"1": "a", "B": ¦[]}, "model": ¦"mpi"},
  "iteration": {"stop": ¦-1, ¦"step": 2},
  "dependencies": {"after": [¦1, "b"]},
  "attributes": ¦[]
}""",
        [
            "stdout is 5",
            "[1] is None",
            "[2] is {}",
            "variable '1'",
            "B is []",
            "is 'mpi'",
            "stop is -1",
            "'step'",
            "[0] is 1",
            "attributes is []",
        ],
    ),
    "iteration": (
        "{" + RUNS + ', "iteration": {"start": 1, ¦"values": ["a"], "stop": 3}}',
        ["iteration needs either 'stop' or 'values'"],
    ),
    "waits-for-itself": (
        '{"name": "${n}", ' + RUNS + ', "dependencies": {"after": ["b", ¦"${n}"]}}',
        ["after: [1] names the job itself"],
    ),
    # defaults
    "defaults": (
        """{"execution": {"exec": "e","args": ["${T}"]}, "resources": {"numCores": ${n}, "wt": "${w}"},
            "defaults": {¦"rho": 1, "n": ¦-1, "w": ¦"long", "T": "¦${n}"}}""",
        ["the default of 'rho' is for no placeholder", "numCores is -1", "wt is 'long'", "contain a placeholder"],
    ),
    "default-text": (
        '{"execution": {"exec": "e"}, "resources": {"numCores": "${n}"}, "defaults": {"n": ¦"two"}}',
        ["the default of 'n' is the text 'two' where no text can be"],
    ),
    "defaults-of-a-list": (
        '[{"name": "a", ' + RUNS + ', ¦"defaults": {}}]',
        ["unknown key 'defaults'"],
    ),
    "keys-of-placeholders": (
        '{"execution": {"exec": "e"}, "${key}": {"a": "${b}"}, ¦"zz": 1, "name": ¦[]}',
        ["unknown key 'zz'", "name is []"],
    ),
    # lists
    "list": (
        '[{"name": "${n}.a", ' + RUNS + '},\n{¦"Name": 1, ' + RUNS + '},\n{"name": "c", ' + RUNS + "}]",
        ["'Name'; did you mean 'name'?"],
    ),
    "names-twice": (
        '[{"name": "${n}.a", ' + RUNS + '},\n{"name": "n.a", ' + RUNS + '},\n{"name": ¦"${n}.a", ' + RUNS + "}]",
        ["name is '${n}.a', as that of another job here"],
    ),
    "in-a-request": (
        '{"request": "submit", "jobs": [{' + RUNS + "}, {" + RUNS + ', ¦"resorces": {}}]}',
        ["did you mean 'resources'?"],
    ),
    "circle": (
        """[{"name": "a", "execution": {"exec": "e"}, "dependencies": {"after": ¦"${n}.b"}},
            {"name": "${n}.b", "execution": {"exec": "e"}, "dependencies": {"after": ["a"]}}]""",
        ["wait for each other"],
    ),
    "no-job": ("¦[]", ["gives no job description"]),
    "another-request": ('¦{"request": "cancelJob"}', ["only 'submit' can be submitted"]),
    # what the columns count
    "unicode": ('{"name": "é😀", "execution": {"exec": "${e}", "stdin": "ü", "wd": ¦1}}', ["wd is 1"]),
    "python": ("# é\n{'name': '''${n}''',  # it's ${n}\n 'execution': {'exec': 'e', 'wd': ¦True,},}", ["wd is True"]),
    "schema-key": ('{"$schema": "a.json", ' + RUNS + ', ¦"zz": 1}', ["unknown key 'zz'"]),
    "schema-elsewhere": ('{"name": "a", "¦$schema": "a.json", ' + RUNS + "}", ["'$schema' has to be the first key"]),
    "no-text": ('{"name": "x", ' + RUNS + ', "dependencies": {"after": [¦1]}}', ["[0] is 1; write text"]),
    "no-default": ("{" + RUNS + ', "resources": {"numCores": "${n}"}, "defaults": {"n": ¦0}}', ["numCores is 0"]),
    "blank-lines": ("\n\n  {" + RUNS + ",\n\n ¦'zz': 1}", ["unknown key 'zz'"]),
}
WRONG["crlf"] = (WRONG["all-at-once"][0].replace("\n", "\r\n"), WRONG["all-at-once"][1])

GOOD = {
    "perhaps-nothing": ('{"execution": {"exec": "${a}$b", "script": "echo"}}', "parameters: a, b"),
    "side-by-side": ('{"execution": {"exec": "e" ${more}}}', "parameters: more"),
    "one-of-two": (
        '{"execution": {"exec": "${exec}", "args": "${args}", "script": "${script}"}}',
        "parameters: exec, args, script",
    ),
    "quoted": (
        """{
            "name": "${name}", "execution": {"exec": "${exec}", "args": "${args}", "env": "${env}"},
            "iteration": {"start": "${start}", "stop": "${stop}", "values": "${values}"},
            "resources": {"numCores": {"min": "${least}", "scheduler": {"name": "${s}"}}, "wt": "${hours}h",
                          "nodeCrs": {"gpu": "${gpu}"}},
            "dependencies": {"after": "${after}"}, "defaults": {"args": []}
        }""",
        "parameters: name, exec, env, start, stop, values, least, s, hours, gpu, after; with defaults: args=[]",
    ),
    "walltime": ("{" + RUNS + ', "resources": {"wt": "${n}${unit}"}}', "parameters: n, unit"),
    "model": ('{"execution": {"exec": "e", "model": "${kind}mpi"}}', "parameters: kind"),
    "range": ("{" + RUNS + ', "resources": {"numCores": {"min": 8, "max": ${n}}}}', "parameters: n"),
    "stop": ("{" + RUNS + ', "iteration": {"start": 8, "stop": ${n}}}', "parameters: n"),
    "stop-far-away": ("{" + RUNS + ', "iteration": {"start": 5000000, "stop": ${n}}}', "parameters: n"),
    "whole": ('[{"name": "a", "execution": ${e}, "resources": ${r}}, ${job}]', "parameters: e, r, job"),
    "variables": ('{"name": "a", "execution": {"exec": "e", "args": ["${it} $$HOME ${jname}"]}}', "no parameters"),
    "escapes": (
        r'{"name": "a\/b", "execution": {"exec": "\ud83d\ude00", "wd": null}, "resources": null}',
        "no parameters",
    ),
    "keys": (
        '{"execution": {"exec": "e", "env": {"${key}": "${value}", "stop": "${a}"}}}',
        "parameters: key, value, a",
    ),
    "defaults": (
        '{"execution": {"exec": "e", "args": ["${T}"]}, "defaults": {"T": "é"}}',
        'with defaults: T="é"',
    ),
    "both": (
        '{"name": "${n}", "execution": {"exec": "e", "args": ["${T}"]}, "defaults": {"T": [0.5]}}',
        "parameters: n; with defaults: T=[0.5]",
    ),
    "other-names": (
        f"""[{{"name": "a", {RUNS}, "dependencies": {{"after": ["${{a}}", "${{b}}"]}}}},
             {{"name": "b", {RUNS}, "dependencies": {{"after": ["a"]}}}}]""",
        "parameters: a, b",
    ),
    "waits": (
        f'[{{"name": "a", {RUNS}, "dependencies": {{"after": ["b", "c:1"]}}}}, {{"name": "b", {RUNS}}}]',
        "submitted before: c:1",
    ),
}


def _run(*arguments, cwd):
    boot = "from qcg.pilotjob.executor_api._command.template import main; main()"
    return subprocess.run(
        [sys.executable, "-c", boot, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={"PATH": "", "PYTHONUTF8": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Check all of the texts above in one run; returns a function from a file's name to what is said of it."""
    directory = tmp_path_factory.mktemp("templates")
    for kind, texts in (("wrong", WRONG), ("good", GOOD)):
        for name, (text, _) in texts.items():
            (directory / f"{kind}.{name}").write_bytes(text.replace("¦", "").encode())
    completed = _run("check", *sorted(path.name for path in directory.iterdir()), cwd=directory)
    assert (completed.returncode, completed.stderr) == (1, "")
    lines = completed.stdout.splitlines()
    return lambda file: [line[len(file) + 1 :] for line in lines if line.startswith(f"{file}:")]


def _places(text):
    """Return the lines and columns of the marks."""
    lines = text.replace("\r\n", "\n").split("\n")
    return [
        (number, match.start() - before + 1)
        for number, line in enumerate(lines, 1)
        for before, match in enumerate(re.finditer("¦", line))
    ]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_with_its_place(checked, name):
    text, problems = WRONG[name]
    said = [line.split(":", 2) for line in checked(f"wrong.{name}")]
    assert [(int(line), int(column)) for line, column, _ in said] == _places(text), said
    assert len(said) == len(problems), said
    for (_, _, told), problem in zip(said, problems):
        assert problem in told


@pytest.mark.parametrize("name", GOOD)
def test_of_a_good_template_the_parameters_are_told(checked, name):
    assert checked(f"good.{name}") == [f" {GOOD[name][1]}"]


def test_the_ready_made_templates_are_good(tmp_path):
    for template in (BasicTemplate, ScriptTemplate, ParallelTemplate, IterationTemplate):
        (tmp_path / template.__name__).write_text(template.template()[0])
    files = [*sorted(tmp_path.iterdir()), *sorted(FILES.glob("*.json"))]
    completed = _run("check", *files, cwd=tmp_path)
    assert completed.returncode == 0, completed.stdout
    assert [line.partition(": ")[0] for line in completed.stdout.splitlines()] == list(map(str, files))
    assert f"{FILES}/basic.json: parameters: name, exec; with defaults: args=[]\n" in completed.stdout


def test_what_is_no_utf_8_has_its_place(tmp_path):
    (tmp_path / "a.json").write_bytes('{\n "é": "'.encode() + b"\xe9")
    (tmp_path / "b.json").write_bytes(b"\xef\xbb\xbf{}")  # as editors of Windows begin a file
    completed = _run("check", "a.json", "b.json", cwd=tmp_path)
    assert completed.returncode == 1
    first, second = completed.stdout.splitlines()
    assert first.startswith("a.json:2:8: this is no UTF-8")
    assert second.startswith("b.json:1:1: the job has no 'execution'")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check"], "FILE"),
        (["check", "none.json"], "none.json"),
        (["check", "."], "directory"),
        (["x"], "x"),
    ],
)
def test_wrong_usage(tmp_path, arguments, said):
    completed = _run(*arguments, cwd=tmp_path)
    assert completed.returncode == 2
    assert said in completed.stderr + completed.stdout
    assert "Traceback" not in completed.stderr


def test_the_schema_is_printed_or_its_path(tmp_path):
    printed = _run("schema", cwd=tmp_path).stdout
    assert "definitions" in json.loads(printed)
    assert Path(_run("schema", "--path", cwd=tmp_path).stdout.rstrip("\n")).read_text() == printed


def test_the_templates_are_listed(tmp_path):
    listed = _run("list", cwd=tmp_path).stdout
    assert [line.split()[0] for line in listed.splitlines()] == [
        "BasicTemplate",
        "ScriptTemplate",
        "ParallelTemplate",
        "IterationTemplate",
    ]


@pytest.mark.parametrize("command", ["record", "template", "map"])
@pytest.mark.parametrize(
    "what",
    ["/dev/zero", "/proc/self/mem", "loop", "dangling", "directory", "binary", "deep", "x" * 5000, "a\udcff", "a/b"],
)
def test_what_is_no_file_of_ours_is_a_message(tmp_path, command, what):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "directory").mkdir()
    (tmp_path / "binary").write_bytes(bytes(range(255, 0, -1)) + b"\n")
    (tmp_path / "deep").write_text("[" * 100_000 + "\n")
    (tmp_path / "a").touch()
    before = {"record": [], "template": ["check"], "map": ["--grid", "n=1", "--dry-run"]}[command]
    boot = f"from qcg.pilotjob.executor_api._command.{command} import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", boot, *before, what],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in run.stderr
    found = (command, what) in {("template", "/dev/zero"), ("template", "binary"), ("template", "deep")}
    assert run.returncode == (1 if found else 2)
    assert (run.stdout if found else run.stderr).strip()
