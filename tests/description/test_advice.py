"""What is told to somebody who gives the right thing in the wrong way: their own argument, and what to write."""

import json
import re

import pytest

from qcg.pilotjob.executor_api import (
    BasicTemplate,
    DuplicateJobName,
    InvalidOption,
    IterationTemplate,
    JobFailed,
    ParallelTemplate,
    QCGPJExecutor,
    ScriptTemplate,
    TemplateError,
)


@pytest.fixture(scope="module")
def executor(tmp_path_factory):
    with QCGPJExecutor(wd=tmp_path_factory.mktemp("wd"), resources=1) as executor:
        yield executor


def _raises(arguments):
    raise TypeError("of its own")


@pytest.mark.parametrize("call", [(pow, 2, 3), (len, [1]), (lambda x: x, 3)], ids=["pow", "len", "f"])
def test_functions_are_for_another_executor(executor, call):
    with pytest.raises(TypeError, match=r"use executor\.functions\(\)\.submit\(\.\.\.\)"):
        executor.submit(*call)


def test_a_function_that_returns_no_template(executor):
    with pytest.raises(TypeError, match=r"returned int; .*use executor\.functions\(\)\.submit"):
        executor.submit(lambda: 3)


def test_a_name_that_is_taken_can_be_used_again_as_it_is_said(executor):
    executor.submit(BasicTemplate, name="taken", exec="true").result(20)
    with pytest.raises(DuplicateJobName, match=r"run it again after qcgpj_manager\.remove\(\[name\]\)"):
        executor.submit(BasicTemplate, name="taken", exec="true")
    executor.qcgpj_manager.remove(["taken"])
    assert executor.submit(BasicTemplate, name="taken", exec="true").result(20) == {"taken": "SUCCEED"}


def test_an_error_in_a_template_is_its_own(executor):
    with pytest.raises(TypeError, match=r"^of its own$"):
        executor.submit(lambda: _raises(1))


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (4, "resources=4"),
        ("4", "resources='4'"),
        ("n1:2,n2:2", "resources='n1:2,n2:2'"),
        ("run", "wd= for the directory"),
    ],
)
def test_an_argument_that_is_no_option(argument, said):
    with pytest.raises(InvalidOption, match=re.escape(said)):
        QCGPJExecutor(argument)


@pytest.mark.parametrize(
    ("template", "given", "said"),
    [
        (BasicTemplate, {"args": "a b"}, "args='a b' is text where the job takes none; write a list: args=['a', 'b']"),
        (BasicTemplate, {"args": "a 'b c'"}, "write a list: args=['a', 'b c']"),
        (BasicTemplate, {"args": "it's"}, 'write a list: args=["it\'s"]'),
        (BasicTemplate, {"after": "x"}, "after='x' is text where the job takes none; write a list: after=['x']"),
        (ScriptTemplate, {"env": "A=1"}, "write a dictionary: env={'A': '1'}"),
        (ScriptTemplate, {"env": "A"}, "write a dictionary: env={'NAME': 'value'}"),
        (ScriptTemplate, {"cores": "two"}, "write a number, like cores=2"),
        (ScriptTemplate, {"modules": "gcc"}, "write a list: modules=['gcc']"),
        (ScriptTemplate, {"login": "yes"}, "write login=True or login=False"),
        (IterationTemplate, {"stop": "x"}, "write a number, like stop=2"),
        (ParallelTemplate, {"nodes": "all"}, "write a number, like nodes=2"),
    ],
)  # fmt: skip
def test_text_where_the_job_takes_none(executor, template, given, said):
    with pytest.raises(TemplateError, match=re.escape(said)):
        executor.submit(template, {"name": "a", "exec": "echo", "script": "echo"}, **given)


@pytest.mark.parametrize(
    ("execution", "message", "advice"),
    [
        ({"exec": "./no-first-line"}, "Exec format error", "let its first line name an interpreter"),
        ({"exec": "./directory"}, "it is a directory", "name a program in it"),
        ({"exec": "./not-executable"}, "Permission denied", r"chmod \+x"),
        ({"exec": "cat", "stdin": "nothing"}, "cannot open stdin", "has to be there when the job starts"),
        ({"exec": "true", "stdout": "directory"}, "Is a directory", "name a file in it"),
        ({"exec": "true", "stdout": "nothing/out"}, "No such file", "make the directory of that file first"),
        ({"exec": "true", "wd": "not-executable/x"}, "the working directory cannot be made", "give a 'wd' in which"),
        (
            {"exec": "true", "model": "srunmpi"},
            "needs a Slurm allocation",
            "use another model, or start the program in",
        ),
    ],
)
def test_what_comes_next_when_a_job_cannot_start(tmp_path, execution, message, advice):
    (tmp_path / "directory").mkdir()
    for name, mode in (("no-first-line", 0o755), ("not-executable", 0o644)):
        (tmp_path / name).write_text("text\n")
        (tmp_path / name).chmod(mode)
    text = json.dumps({"execution": execution, "resources": {"numCores": 2}})
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        job = executor.submit(lambda: text)
        with pytest.raises(JobFailed, match=rf"message: .*{message}.*\n(.*\n)*  next: .*{advice}"):
            job.raise_for_status(20)
