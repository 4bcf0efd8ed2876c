"""Every ready-made template and everything that submit takes for one, run by a manager."""

from __future__ import annotations

import functools
import json
import os
import re
import venv
from pathlib import Path

import pytest

from qcg.pilotjob.executor_api import (
    BasicTemplate,
    InvalidJob,
    IterationTemplate,
    JSONTemplate,
    ParallelTemplate,
    QCGPJExecutor,
    QCGPJTemplate,
    ScriptTemplate,
    TemplateError,
)

FILES = Path(__file__).parents[2] / "templates"


@pytest.fixture
def run(executor, tmp_path):
    """Submit, wait for success, and return a function that reads the files which the jobs have made."""

    def submit(template, *dictionaries, **parameters):
        future = executor.submit(template, *dictionaries, **parameters)
        assert set(future.result(timeout=30).values()) == {"SUCCEED"}
        return lambda file: (tmp_path / file).read_text()

    return submit


@pytest.fixture
def mpirun(tmp_path):
    """A program in the place of mpirun: it notes its arguments and runs the command once."""
    program = tmp_path / "bin" / "mpirun"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" > mpirun.args\n'
        'while case "$1" in -n | --bind-to) shift 2 ;; --verbose) shift ;; *) false ;; esac; do :; done\nexec "$@"\n'
    )
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def modules(monkeypatch):
    """A `module` function, as a cluster's shells have it, that says what it is asked for; ask for it before `run`."""
    monkeypatch.setenv("BASH_FUNC_module%%", '() { echo "module $*"; }')


class TestBasic:
    def test_the_least(self, run):
        read = run(BasicTemplate, name="a", exec="echo")
        assert (read("stdout"), read("stderr")) == ("\n", "")

    def test_all_parameters(self, run):
        read = run(BasicTemplate, name="a", exec="ls", args=["/", "--version"], stdout="out", stderr="err")
        assert "ls" in read("out")
        assert read("err") == ""

    @pytest.mark.parametrize("args", [["a b", 1], ("a b", 1), '["a b", 1]', "['a b', '1']"])
    def test_forms_of_a_list(self, run, args):
        assert run(BasicTemplate, name="a", exec="printf", args=args)("stdout") == "a b"


class TestScript:
    def test_the_least(self, run):
        read = run(ScriptTemplate, name="a", script="echo out\necho err >&2")
        assert (read("a.out"), read("a.err")) == ("out\n", "err\n")

    def test_all_parameters(self, run, executor):
        first = executor.submit(ScriptTemplate, name="first", script="echo made > made")
        script = 'cat ../../made; echo "$TEXT ${ncores} $0" >&2; pwd'
        read = run(
            ScriptTemplate,
            name="a",
            script=script,
            env={"TEXT": "it's $HOME"},
            wd="x/y",
            stdout="o",
            stderr="e",
            cores=2,
            walltime="1h",
            after=first,
        )
        made, directory = read("x/y/o").splitlines()
        assert made == "made"
        assert directory.endswith("/x/y")
        assert read("x/y/e") == "it's $HOME 2 bash\n"

    def test_the_last_command_tells(self, executor):
        assert executor.submit(ScriptTemplate, name="a", script="true; exit 3").result(30) == {"a": "FAILED"}


class TestParallel:
    def test_the_least(self, run):
        read = run(ParallelTemplate, name="a", exec="echo", args=["${ncores}"])
        assert (read("a.out"), read("a.err")) == ("1\n", "")

    @pytest.mark.parametrize(
        ("sizes", "cores"),
        [
            ({"cores": 2}, "2"),
            ({"cores": {"min": 2, "max": 3}}, "3"),
            ({"nodes": 1}, "4"),
            ({"nodes": 1, "cores": 3}, "3"),
            ({"cores": 4, "model": "threads"}, "4"),
        ],
    )
    def test_sizes(self, run, sizes, cores):
        read = run(ParallelTemplate, name="a", exec="echo", args=["${ncores}"], walltime="1h", **sizes)
        assert read("a.out") == f"{cores}\n"

    def test_files_and_environment(self, run):
        read = run(
            ParallelTemplate, name="a", exec="printenv", args=["A"], env={"A": 1}, wd="w", stdout="o", stderr="e"
        )
        assert (read("w/o"), read("w/e")) == ("1\n", "")

    def test_modules_and_a_venv(self, modules, run, tmp_path):
        venv.create(tmp_path / "it's a venv", symlinks=True)
        program = "import sys; print(sys.prefix, sys.argv[1:])"
        read = run(
            ParallelTemplate,
            name="a",
            exec="python",
            args=["-c", program, "it's", "$HOME"],
            modules=["gcc/12", "a b"],
            venv=str(tmp_path / "it's a venv"),
        )
        assert read("a.out").splitlines() == [
            "module load gcc/12",
            "module load a b",
            f"{tmp_path}/it's a venv [\"it's\", '$HOME']",
        ]

    def test_without_its_venv_the_job_fails(self, executor, tmp_path):
        future = executor.submit(ParallelTemplate, name="a", exec="touch", args=["made"], venv=tmp_path / "none")
        assert future.result(30) == {"a": "FAILED"}
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize(
        ("env", "options", "layout"),
        [
            ({}, [], ["-n", "2", "--bind-to", "none"]),
            ({"OMP_NUM_THREADS": 3}, [], ["-n", "2", "--bind-to", "none"]),
            ({}, ["--bind-to", "numa"], ["-n", "2", "--bind-to", "numa"]),
            ({}, ["-n", "1"], ["-n", "1"]),
        ],
    )
    def test_ranks_with_threads(self, run, mpirun, env, options, layout):
        read = run(
            ParallelTemplate,
            name="a",
            exec="sh",
            args=["-c", "echo $OMP_NUM_THREADS"],
            env=env,
            model="openmpi",
            model_opts={"mpirun": mpirun, "mpirun_args": options},
            cores=4,
            ranks=2,
        )
        assert read("mpirun.args").splitlines()[:-3] == layout
        assert read("a.out") == f"{env.get('OMP_NUM_THREADS', 2)}\n"

    @pytest.mark.parametrize("model", ["openmpi", "intelmpi"])
    def test_mpi(self, run, mpirun, model):
        read = run(
            ParallelTemplate,
            name="a",
            exec="echo",
            args=["a b", "$HOME"],
            model=model,
            model_opts={"mpirun": mpirun, "mpirun_args": ["--verbose"]},
            cores=3,
        )
        assert read("mpirun.args").splitlines() == ["-n", "3", "--verbose", "echo", "a b", "$HOME"]
        assert read("a.out") == "a b $HOME\n"

    def test_after(self, run, executor):
        first = executor.submit(ScriptTemplate, name="first", script="echo made > made")
        assert run(ParallelTemplate, name="a", exec="cat", args=["made"], after=[first])("a.out") == "made\n"


class TestIteration:
    def test_a_range(self, run):
        read = run(IterationTemplate, name="a", exec="echo", args=["${it}"], stop=3)
        assert [read(f"a.{number}.out") for number in range(3)] == ["0\n", "1\n", "2\n"]
        assert read("a.2.err") == ""

    def test_values(self, run):
        read = run(IterationTemplate, name="a", exec="echo", args=["${itval}"], values=["x y", 0.5])
        assert [read(f"a.{number}.out") for number in range(2)] == ["x y\n", "0.5\n"]

    def test_all_parameters(self, run, executor, tmp_path):
        first = executor.submit(ScriptTemplate, name="first", script="echo made > made")
        read = run(
            IterationTemplate,
            name="a",
            exec="sh",
            args=["-c", "cat ../made; echo $A"],
            env={"A": "${it} of ${ncores}"},
            wd="w${it}",
            stdout="o",
            stderr="e",
            start=2,
            stop=4,
            cores=2,
            walltime="1h",
            after=first,
        )
        assert [read(f"w{number}/o") for number in (2, 3)] == ["made\n2 of 2\n", "made\n3 of 2\n"]
        assert not (tmp_path / "w4").exists()


class TestJSON:
    TEXT = (
        '{"defaults": {"a": 1, "b": 1, "c": 1}, "execution": {"exec": "echo", "args": ["${a}${b}${c}"], "stdout": "o"}}'
    )

    def test_defaults(self, run, tmp_path):
        (tmp_path / "t.json").write_text(self.TEXT)
        template = JSONTemplate(tmp_path / "t.json", b=2, c=2)
        assert run(template, c=3)("o") == "123\n"
        assert run(template, {"a": 5})("o") == "522\n"

    def test_the_file_is_read_once(self, run, tmp_path):
        (tmp_path / "t.json").write_text(self.TEXT, encoding="utf-8")
        template = JSONTemplate(str(tmp_path / "t.json"))
        (tmp_path / "t.json").unlink()
        assert run(template)("o") == "111\n"

    def test_a_missing_file_is_told_at_once(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.json"):
            JSONTemplate(tmp_path / "none.json")

    def test_a_file_that_is_no_template_is_named_with_the_place(self, tmp_path):
        (tmp_path / "t.json").write_text('{"name": "a",\n "execution": {"exec": "true",, }}')
        with pytest.raises(TemplateError, match=r"t\.json: line 2, column \d+ of the template: ") as caught:
            JSONTemplate(tmp_path / "t.json")
        assert caught.value.line == 2

    def test_repr(self, tmp_path):
        (tmp_path / "t.json").write_text(self.TEXT)
        assert repr(JSONTemplate(tmp_path / "t.json")) == f"JSONTemplate('{tmp_path}/t.json')"


class TestFiles:
    """The files in templates/."""

    @staticmethod
    def of(name, **defaults):
        return JSONTemplate(FILES / name, **defaults)

    def test_basic(self, run):
        assert run(self.of("basic.json"), name="a", exec="echo")("a.out") == "\n"
        read = run(self.of("basic.json"), name="b", exec="echo", args=["it's", '"'])
        assert (read("b.out"), read("b.err")) == ("it's \"\n", "")

    def test_basic_with_a_list_as_text(self, run):
        assert run(self.of("basic.json"), name="a", exec="echo", args='["-n", "x"]')("a.out") == "x"

    def test_script(self, run, executor):
        first = executor.submit(self.of("script.json"), name="first", script="echo made > made")
        read = run(
            self.of("script.json"),
            name="a",
            script='cat ../made\necho "$A" ${ncores} >&2',
            env={"A": 1},
            wd="w",
            cores=2,
            walltime="1h",
            after=first,
        )
        assert (read("w/a.out"), read("w/a.err")) == ("made\n", "1 2\n")

    def test_parallel(self, modules, run, executor):
        first = executor.submit(self.of("parallel.json"), name="first", exec="touch", args=["made"])
        read = run(
            self.of("parallel.json"),
            name="a",
            exec="sh",
            args=["-c", "ls ../made; echo $A ${ncores}"],
            env={"A": 1},
            wd="w",
            modules=["gcc"],
            model="default",
            nodes=1,
            cores=3,
            walltime="1h",
            after=[first],
        )
        assert read("w/a.out") == "module load gcc\n../made\n1 3\n"

    def test_iteration(self, run):
        read = run(self.of("iteration.json"), name="a", exec="echo", args=["${it}"], start=1, stop=3)
        assert [read(f"a.{number}.out") for number in (1, 2)] == ["1\n", "2\n"]
        read = run(
            self.of("iteration.json"),
            name="b",
            exec="echo",
            args=["${itval} ${ncores}"],
            values=["x"],
            cores=2,
            after=["a"],
        )
        assert (read("b.0.out"), read("b.0.err")) == ("x 2\n", "")

    def test_mpi(self, modules, run, mpirun):
        read = run(
            self.of("mpi.json", mpirun=mpirun),
            name="a",
            exec="echo",
            args=["a b"],
            cores=3,
            nodes=1,
            mpirun_args=["--verbose"],
            modules=["openmpi"],
            env={"A": 1},
            wd="w",
            walltime="1h",
            after=[],
        )
        assert read("w/mpirun.args").splitlines() == ["-n", "3", "--verbose", "echo", "a b"]
        assert read("w/a.out") == "module load openmpi\na b\n"

    def test_chain(self, run, executor):
        chain = self.of("chain.json", cores=1)
        read = run(chain, name="a", first="echo ${jname} > step", second="cat step; echo ${ncores}", cores=2)
        assert read("a.second.out") == "a.first\n2\n"
        future = executor.submit(chain, name="b", first="exit 1", second="true")
        assert future.result(30) == {"b.first": "FAILED", "b.second": "OMITTED"}

    def test_python(self, run, tmp_path):
        venv.create(tmp_path / "venv", symlinks=True)
        (tmp_path / "program.py").write_text("import os, sys\nprint(sys.prefix, os.environ['A'], sys.argv[1:])\n")
        read = run(
            self.of("python.json"),
            name="a",
            args=["../program.py", "x y"],
            venv=str(tmp_path / "venv"),
            env={"A": 1},
            wd="w",
            cores=2,
            walltime="1h",
            after=[],
        )
        assert read("w/a.out") == f"{tmp_path}/venv 1 ['x y']\n"

    def test_the_readme_lists_the_files_their_parameters_and_their_defaults(self):
        rows = {}
        for line in (FILES / "README.md").read_text().splitlines():
            match = re.match(r"\| \[(\w+\.json)\]\(\1\) \|[^|]*\|([^|]*)\|([^|]*)\|", line)
            if match:
                rows[match[1]] = match[2], dict(re.findall(r"`(\w+)=([^`]*)`", match[3]))
        assert sorted(rows) == sorted(path.name for path in FILES.glob("*.json"))
        for file, (parameters, defaults) in rows.items():
            text = (FILES / file).read_text()
            placeholders = set(re.findall(r"\$\{(\w+)\}", text)) - {"it"}
            assert set(re.findall(r"`(\w+)`", parameters)) == placeholders, file
            match = re.search(r'"defaults": (\{.*\})\s*\}\s*$', text, re.DOTALL)
            names = {"null": None}
            assert {name: eval(value) for name, value in defaults.items()} == (
                eval(match[1], names) if match else {}
            ), file

    def test_the_lines_of_the_readme_run(self, mpirun, tmp_path, monkeypatch):
        monkeypatch.chdir(FILES.parent)
        monkeypatch.setenv("PATH", os.path.dirname(mpirun) + os.pathsep + os.environ["PATH"])
        venv.create(tmp_path / "venv", symlinks=True)
        lines = re.findall(r"^executor\.submit\(.*\)$", (FILES / "README.md").read_text(), re.MULTILINE)
        assert len(lines) == len(list(FILES.glob("*.json")))
        with QCGPJExecutor(wd=tmp_path, resources="2") as executor:
            futures = [eval(line, {"executor": executor, "JSONTemplate": JSONTemplate}) for line in lines]
            assert {state for future in futures for state in future.result(30).values()} == {"SUCCEED"}
        expected = {"basic": "Hello!\n", "script": "1\n2\n3\n", "parallel": "2\n", "iteration.2": "2\n"}
        expected.update({"chain.second": "1\n", "python": "2\n", "mpi": os.uname().nodename + "\n"})
        assert {name: (tmp_path / f"{name}.out").read_text() for name in expected} == expected


TEXT = '{"name": "${name}", "execution": {"exec": "echo", "args": ["${name}"], "stdout": "out"}}'


class Custom(QCGPJTemplate):
    @staticmethod
    def template():
        return TEXT, {"name": "custom"}


class Narrowed(BasicTemplate):
    """A template made from another."""

    @staticmethod
    def template():
        text, defaults = BasicTemplate.template()
        return text, {**defaults, "exec": "echo", "name": "narrowed", "args": ["narrowed"], "stdout": "out"}


class WithState:
    """No relative of the ready-made ones, and its function needs an object."""

    def __init__(self, name):
        self.name = name

    def template(self):
        return TEXT, {"name": self.name}

    def another(self):
        return TEXT, {"name": self.name}


class Called:
    def __call__(self):
        return TEXT, {"name": "called"}


def function():
    return TEXT, {"name": "function"}


def just_text():
    return TEXT.replace("${name}", "just-text")


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (Custom.template, "custom"),
        (Custom, "custom"),
        (Custom(), "custom"),
        (Custom().template, "custom"),
        (Narrowed, "narrowed"),
        (Narrowed.template, "narrowed"),
        (WithState("object"), "object"),
        (WithState("method").another, "method"),
        (Called(), "called"),
        (lambda: (TEXT, {"name": "lambda"}), "lambda"),
        (lambda: TEXT.replace("${name}", "text-of-a-lambda"), "text-of-a-lambda"),
        (lambda: (TEXT.replace("${name}", "no-defaults"), None), "no-defaults"),
        (function, "function"),
        (just_text, "just-text"),
        (functools.partial(lambda name: (TEXT, {"name": name}), "partial"), "partial"),
    ],
)
def test_what_submit_takes(run, template, name):
    assert run(template)("out") == f"{name}\n"


@pytest.mark.parametrize("template", [BasicTemplate.template, BasicTemplate, BasicTemplate()])
def test_the_forms_of_a_ready_made_template(run, template):
    assert run(template, name="a", exec="echo", args=["x"])("stdout") == "x\n"


class NoTemplate:
    pass


class NotCallable:
    template = TEXT


@pytest.mark.parametrize("template", [None, 5, TEXT, {"name": "a"}, (TEXT, {}), NotCallable, NotCallable()])
def test_what_is_no_template_is_a_type_error(executor, template):
    with pytest.raises(TypeError, match="takes a template, that is a callable that returns the text"):
        executor.submit(template, name="a")


@pytest.mark.parametrize(
    "template",
    [
        lambda: None,
        lambda: 5,
        lambda: {"name": "a"},
        lambda: (TEXT,),
        lambda: (TEXT, 5),
        lambda: (TEXT, {}, 1),
        NoTemplate,
    ],
)
def test_what_returns_something_else_is_a_type_error(executor, template):
    with pytest.raises(TypeError, match="must return the text of a job description, or"):
        executor.submit(template, name="a")


def test_an_error_inside_a_template_is_the_users(executor):
    with pytest.raises(ZeroDivisionError):
        executor.submit(lambda: 1 / 0)


def test_a_template_class_must_define_its_function(executor):
    with pytest.raises(NotImplementedError, match="must define template"):
        executor.submit(QCGPJTemplate)


class TestNames:
    @pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "a;b", "a\u202eb", "a*"])
    def test_a_name_that_cannot_be_is_refused_whichever_template_gives_it(self, executor, tmp_path, name):
        (tmp_path / "file.json").write_text(json.dumps({"name": "${n}", "execution": {"exec": "true"}}))
        several = [{"name": each, "execution": {"exec": "true"}} for each in ("good", name)]
        for submit in (
            lambda: executor.submit(BasicTemplate, name=name, exec="true"),
            lambda: executor.submit(ScriptTemplate, name=name, script="true"),
            lambda: executor.submit(ParallelTemplate, name=name, exec="true"),
            lambda: executor.submit(IterationTemplate, name=name, exec="true", stop=2),
            lambda: executor.submit(JSONTemplate(tmp_path / "file.json"), n=name),
            lambda: executor.submit(lambda: json.dumps({"request": "submit", "jobs": several})),
        ):
            with pytest.raises(InvalidJob, match="the job's name"):
                submit()
        assert executor.qcgpj_manager.list() == {}

    def test_a_name_of_parts_has_its_files_in_directories_below(self, executor, tmp_path):
        (tmp_path / "T=1,p=2").mkdir()
        executor.submit(ScriptTemplate, name="T=1,p=2/a#1", script="echo here").raise_for_status(30)
        assert (tmp_path / "T=1,p=2" / "a#1.out").read_text() == "here\n"
