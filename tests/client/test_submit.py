"""submit(): what it takes, what it refuses at once, and what only the future can tell."""

import pytest

from qcg.pilotjob.executor_api import (
    BasicTemplate,
    DuplicateJobName,
    ExecutorClosed,
    InvalidJob,
    JobFailed,
    JobRefused,
    MissingParameter,
    QCGPJExecutor,
    ScriptTemplate,
    TemplateError,
)

TRUE = "{'name': '${name}', 'execution': {'exec': 'true'}}"


def test_dictionaries_and_keywords(executor, tmp_path):
    future = executor.submit(
        BasicTemplate.template,
        {"exec": "false", "args": ["first"], "stdout": "lost"},
        None,
        {"exec": "echo", "stdout": "lost too"},
        name="tj",
        stdout="kept",
    )
    assert future.ids == ["tj"]
    assert future.result(20) == {"tj": "SUCCEED"}
    assert (tmp_path / "kept").read_text() == "first\n"
    assert not (tmp_path / "lost").exists()


def test_a_parameter_may_be_called_like_an_argument_of_submit(executor):
    template = "{'name': '${self}', 'execution': {'exec': '${fn}', 'args': ['${args}']}}"
    assert executor.submit(lambda: template, self="me", fn="echo", args="x").result(20) == {"me": "SUCCEED"}


def test_a_missing_parameter_is_a_key_error_that_names_it(executor):
    with pytest.raises(KeyError) as caught:
        executor.submit(BasicTemplate.template, name="tj")
    assert isinstance(caught.value, MissingParameter)
    assert caught.value.args == ("exec",)
    assert "exec=" in str(caught.value)


def test_a_program_that_is_to_come_after_others(executor):
    bad = executor.submit(BasicTemplate, name="bad", exec="false")
    assert executor.submit(BasicTemplate, name="after", exec="true", after=[bad]).result(20) == {"after": "OMITTED"}


def test_a_keyword_that_nothing_takes_is_told_where_submit_was_called(executor):
    with pytest.warns(
        UserWarning, match="no placeholder 'cores'; it takes after, args, exec, name, stderr, stdout"
    ) as caught:
        assert executor.submit(BasicTemplate, name="a", exec="true", cores=2).result(20) == {"a": "SUCCEED"}
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="did you mean 'walltime'"):
        executor.submit(ScriptTemplate, name="b", script="true", walltme="1m")
    executor.submit(BasicTemplate, {"cores": 2}, name="c", exec="true")  # a row of a table may have more
    executor.submit(lambda: "{'execution': {'exec': 'true', 'args': ['$${it}']}}", it="d")  # it hides the manager's


def test_a_bad_description_is_told_at_once_and_costs_no_name(executor):
    with pytest.raises(InvalidJob, match="did you mean 'execution'"):
        executor.submit(lambda: "{'name': 'a', 'excution': {'exec': 'true'}}")
    with pytest.raises(TemplateError, match="quotes"):
        executor.submit(lambda: "{'name': ${name}, 'execution': {'exec': 'true'}}", name="a b")
    with pytest.raises(InvalidJob, match="5 cores"):
        executor.submit(lambda: "{'name': 'a', 'execution': {'exec': 'true'}, 'resources': {'numCores': 5}}")
    with pytest.raises(TypeError, match=r"name='\.\.\.'"):
        executor.submit(BasicTemplate, "date")
    assert executor.submit(lambda: TRUE, name="a").result(20) == {"a": "SUCCEED"}


def test_a_name_can_be_used_once(executor):
    executor.submit(lambda: TRUE, name="a").result(20)
    with pytest.raises(DuplicateJobName, match="'a'"):
        executor.submit(lambda: TRUE, name="a")
    with pytest.raises(DuplicateJobName, match="'b'"):
        executor.submit(lambda: f"[{TRUE}, {TRUE}]", name="b")
    executor.qcgpj_manager.remove("a")
    assert executor.submit(lambda: TRUE, name="a").result(20) == {"a": "SUCCEED"}


def test_a_job_without_a_name_gets_one(executor):
    futures = [executor.submit(lambda: "{'execution': {'exec': 'true'}}") for _ in range(3)]
    assert len({future.ids[0] for future in futures}) == 3
    for future in futures:
        assert future.result(20) == {future.ids[0]: "SUCCEED"}


def test_a_list_of_jobs_is_one_future(executor):
    text = """[
        {'name': 'a', 'execution': {'exec': 'true'}},
        {'name': 'b', 'execution': {'exec': 'false'}, 'dependencies': {'after': ['a']}},
        {'name': 'c', 'execution': {'exec': 'true'}, 'dependencies': {'after': ['b']}},
    ]"""
    future = executor.submit(lambda: text)
    assert future.ids == ["a", "b", "c"]
    assert future.result(20) == {"a": "SUCCEED", "b": "FAILED", "c": "OMITTED"}


def test_a_whole_request_is_taken(executor):
    job = TRUE.replace("'", '"')
    future = executor.submit(lambda: f'{{"request": "submit", "jobs": [{job}]}}', name="a")
    assert future.result(20) == {"a": "SUCCEED"}


def test_futures_are_dependencies(executor, tmp_path):
    chain = "{'name': '${name}', 'execution': {'script': '${script}'}, 'dependencies': {'after': ${after}}}"
    first = executor.submit(lambda: chain, name="first", script="echo one > log", after=[])
    second = executor.submit(lambda: chain, name="second", script="echo two >> log", after=first)
    third = executor.submit(lambda: chain, name="third", script="echo three >> log", after=[first, second])
    assert third.result(20) == {"third": "SUCCEED"}
    assert (tmp_path / "log").read_text() == "one\ntwo\nthree\n"


def test_a_refused_job_fails_its_own_future_only(executor):
    after = "{'name': '${name}', 'execution': {'exec': 'true'}, 'dependencies': {'after': ['${after}']}}"
    blocker = executor.submit(BasicTemplate, name="zero", exec="true")
    futures = {}
    for number in range(100):
        unknown = number % 10 == 3
        name = f"job{number}"
        futures[name] = executor.submit(lambda: after, name=name, after="nobody" if unknown else "zero")
    assert blocker.result(20) == {"zero": "SUCCEED"}
    for number, (name, future) in enumerate(futures.items()):
        if number % 10 == 3:
            with pytest.raises(JobRefused, match=rf"{name}.*nobody") as caught:
                future.result(20)
            assert isinstance(caught.value, ValueError)
            assert future.exception(20) is caught.value
            assert future.status() == {}
        else:
            assert future.result(20) == {name: "SUCCEED"}


def test_the_name_of_a_refused_job_is_free_again(executor):
    after = "{'name': 'a', 'execution': {'exec': 'true'}, 'dependencies': {'after': ['nobody']}}"
    assert isinstance(executor.submit(lambda: after).exception(20), JobRefused)
    assert executor.submit(lambda: TRUE, name="a").result(20) == {"a": "SUCCEED"}


def test_the_job_knows_its_name(executor, tmp_path):
    exec_job = "{'name': 'e', 'execution': {'exec': 'printenv', 'args': ['QCG_PM_EXEC_API_JOB_ID'], 'stdout': 'e'}}"
    script = """{'name': 's', 'execution': {'script': 'echo $$QCG_PM_EXEC_API_JOB_ID $$MORE', 'env': {'MORE': 7},
                'stdout': 's'}}"""
    executor.submit(lambda: exec_job).result(20)
    executor.submit(lambda: script).result(20)
    assert (tmp_path / "e").read_text() == "e\n"
    assert (tmp_path / "s").read_text() == "s 7\n"


def test_an_empty_venv_and_no_modules_leave_the_environment_alone(tmp_path, monkeypatch):
    # the core would start such a job through a login shell, which sets another PATH
    monkeypatch.setenv("PATH", "/usr/bin:/bin:/only/here")
    text = """{'name': 'a', 'execution': {'exec': 'printenv', 'args': ['PATH'], 'stdout': 'out',
               'venv': '', 'modules': [], 'model': 'default', 'model_opts': {}}}"""
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        executor.submit(lambda: text).result(20)
    assert (tmp_path / "out").read_text() == "/usr/bin:/bin:/only/here\n"


def test_submit_after_shutdown_is_refused(tmp_path):
    executor = QCGPJExecutor(wd=tmp_path, resources=1)
    executor.shutdown()
    executor.shutdown()
    assert executor.finished
    with pytest.raises(ExecutorClosed):
        executor.submit(BasicTemplate, name="a", exec="true")
    with pytest.raises(RuntimeError):
        executor.submit(BasicTemplate, name="a", exec="true")


@pytest.mark.parametrize("preparation", ["'venv': '/no/such'", "'modules': ['no_such_module']"])
def test_a_preparation_that_fails_fails_the_job(executor, tmp_path, preparation):
    text = "{'name': 'a', 'execution': {'exec': 'touch', 'args': ['ran'], 'stderr': 'err', %s}}"
    assert executor.submit(lambda: text % preparation).result(20) == {"a": "FAILED"}
    assert not (tmp_path / "ran").exists()
    assert (tmp_path / "err").read_text()


def test_a_model_that_this_machine_does_not_have_is_an_error(executor):
    text = "{'name': 'a', 'execution': {'exec': 'true', 'model': 'srunmpi'}, 'resources': {'numCores': 2}}"
    with pytest.raises(JobFailed, match="needs a Slurm allocation"):
        executor.submit(lambda: text).raise_for_status(20)
