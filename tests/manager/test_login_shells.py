"""Scripts run in the environment of the program; a login shell runs those that ask for one, and for modules."""

import json
import os
import sys

import pytest

from qcg.pilotjob.executor_api import InvalidJob, JobFailed, ParallelTemplate, QCGPJExecutor, ScriptTemplate
from qcg.pilotjob.executor_api._description.validation import refuse_what_is_ours, validated

PROFILE = """
export PATH=/usr/bin:/bin FROM_PROFILE=yes
echo profile
module() { export LOADED="$LOADED $2"; [ "$2" != missing ]; }
"""
TELL = 'echo "$PATH|$FROM_PROFILE|$LOADED"'


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A home whose profile sets a PATH, as a system's does; the program has an environment activated."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", "/opt/activated/bin:" + os.environ["PATH"])
    (home / ".bash_profile").write_text(PROFILE)
    return home / ".bash_profile"


@pytest.fixture
def run(profile, tmp_path):
    """Run a script, and return the lines of its output."""

    def run(script, **parameters):
        with QCGPJExecutor(wd=tmp_path / "run", resources=1) as executor:
            executor.submit(ScriptTemplate, name="a", script=script, **parameters).raise_for_status(20)
        return (tmp_path / "run/a.out").read_text().splitlines()

    return run


def test_a_script_has_the_environment_of_the_program(run):
    assert run(TELL) == [os.environ["PATH"] + "||"]


def test_a_login_shell_reads_the_profile(run):
    assert run(TELL, login=True) == ["profile", "/usr/bin:/bin|yes|"]


def test_modules_are_loaded_in_a_login_shell(run):
    assert run(TELL, modules=["gcc", "hdf5"]) == ["profile", "/usr/bin:/bin|yes| gcc hdf5"]


def test_no_login_shell_loads_modules_where_that_is_said(run, monkeypatch):
    monkeypatch.setenv("BASH_FUNC_module%%", '() { export LOADED="$LOADED $2"; }')  # as `export -f` hands it on
    assert run(TELL, modules=["gcc"], login=False) == [os.environ["PATH"] + "|| gcc"]


def test_variables_of_the_job_hold_behind_the_profile(run):
    assert run("echo $FROM_PROFILE", login=True, env={"FROM_PROFILE": "no"}) == ["profile", "no"]


def test_a_program_with_modules_finds_them(profile, tmp_path):
    with QCGPJExecutor(wd=tmp_path / "run", resources=1) as executor:
        executor.submit(
            ParallelTemplate, name="a", exec="printenv", args=["LOADED"], modules=["gcc"], cores=1
        ).raise_for_status(20)
    assert (tmp_path / "run/a.out").read_text() == "profile\n gcc\n"


def test_a_program_has_a_login_shell_that_asks_for_it(profile, tmp_path):
    with QCGPJExecutor(wd=tmp_path / "run", resources=1) as executor:
        executor.submit(
            ParallelTemplate, name="a", exec="printenv", args=["PATH", "FROM_PROFILE"], cores=1, login=True
        ).raise_for_status(20)
    assert (tmp_path / "run/a.out").read_text() == "profile\n/usr/bin:/bin\nyes\n"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "/opt/activated/bin:{path}||\n"),
        ({"modules": ["gcc"]}, "profile\n/opt/gcc/bin:/usr/bin:/bin|yes| gcc\n"),
        ({"login": True}, "profile\nprofile\n/usr/bin:/bin|yes|\n"),
    ],
    ids=["plain", "modules", "login"],
)
def test_ranks_inherit_what_was_loaded_before_them(profile, tmp_path, more, told):
    path = os.environ["PATH"].partition(":")[2]
    profile.write_text(PROFILE.replace("module() {", "module() { PATH=/opt/$2/bin:$PATH;"))
    mpirun = tmp_path / "mpirun"  # what starts the ranks does not matter here
    mpirun.write_text(f'#!{sys.executable}\nimport os, sys\nos.execvp("bash", sys.argv[3:])\n')
    mpirun.chmod(0o700)
    execution = {"script": TELL, "model": "intelmpi", "model_opts": {"mpirun": str(mpirun)}, "stdout": "a.out", **more}
    text = json.dumps({"name": "a", "execution": execution, "resources": {"numCores": 2}}).replace("$", "$$")
    with QCGPJExecutor(wd=tmp_path / "run", resources=2) as executor:
        executor.submit(lambda: text).raise_for_status(20)
    assert (tmp_path / "run/a.out").read_text() == told.format(path=path)


@pytest.mark.parametrize("end", ["exec true", "exec /bin/sh -c 'exit 3'", "exit", "exit 0", "exit 7"])
@pytest.mark.parametrize("more", [{"login": True}, {"modules": ["gcc"]}], ids=["login", "modules"])
def test_a_job_fails_whose_profile_ends_the_shell(profile, run, tmp_path, end, more):
    profile.write_text(f"{PROFILE}{end}\n")
    with pytest.raises(JobFailed, match="the login shell ended in its profile, before the job began") as failed:
        run("touch ran", **more)
    assert failed.value.exit_code == 126
    assert not (tmp_path / "run/ran").exists()


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_is_that_of_the_script(run, code):
    if code == 0:
        run("exit 0", login=True)
        return
    with pytest.raises(JobFailed) as failed:
        run(f"exit {code}", login=True)
    assert failed.value.exit_code == code


def test_a_login_shell_leaves_no_file_open_to_the_job(run):
    assert run("ls /proc/self/fd", login=True)[1:] == run("ls /proc/self/fd")


@pytest.mark.parametrize("login", ["yes", 1, []])
def test_login_is_true_or_false(login):
    with pytest.raises(InvalidJob, match=r"execution: login is .*; write true or false"):
        validated({"name": "a", "execution": {"script": "true", "login": login}}, None)


def test_a_manager_of_the_core_knows_login_shells_only():
    with pytest.raises(InvalidJob, match="asks for no login shell, which the given manager knows nothing of"):
        refuse_what_is_ours([validated({"name": "a", "execution": {"script": "true", "login": False}}, None)])
    refuse_what_is_ours([validated({"name": "a", "execution": {"script": "true", "login": True}}, None)])
    with pytest.raises(InvalidJob, match="asks for a login shell, which the given manager knows nothing of"):
        refuse_what_is_ours([validated({"name": "a", "execution": {"exec": "true", "login": True}}, None)])
