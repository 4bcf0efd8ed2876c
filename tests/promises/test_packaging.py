"""What is built installs beside the core, in place of the released package, and works from there."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIRST = """
from qcg.pilotjob.executor_api.qcgpj_executor import QCGPJExecutor
from qcg.pilotjob.executor_api.templates.basic_template import BasicTemplate
from importlib.metadata import version
import qcg.pilotjob.service
with QCGPJExecutor(wd="run", resources=1) as executor:
    print(version("qcg-pilotjob-executor-api"), executor.submit(BasicTemplate, name="a", exec="true").result(30))
"""

pytestmark = pytest.mark.packaging


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory, ROOT, cwd=directory)
    return {kind: next(directory.glob(pattern)) for kind, pattern in (("wheel", "*.whl"), ("sdist", "*.tar.gz"))}


@pytest.fixture
def environment(tmp_path):
    """A fresh environment that holds what this package requires and is built with, as the lock has it."""
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    pip(python, "install", "--quiet", "--require-hashes", "-r", ROOT / "requirements" / "base.txt", cwd=tmp_path)
    return python


def pip(python, *arguments, cwd):
    run(sys.executable, "-m", "pip", "--python", python, *arguments, cwd=cwd)


def install(python, *what, cwd):
    pip(python, "install", "--quiet", "--no-deps", "--no-build-isolation", *what, cwd=cwd)


def test_the_wheel_holds_the_package_and_leaves_the_cores_namespace_alone(built):
    names = zipfile.ZipFile(built["wheel"]).namelist()
    assert "qcg/pilotjob/executor_api/py.typed" in names
    assert "qcg/pilotjob/executor_api/_record/page.html" in names
    assert "qcg/pilotjob/executor_api/job.schema.json" in names
    assert "qcg/__init__.py" not in names
    assert "qcg/pilotjob/__init__.py" not in names
    assert all(name.startswith(("qcg/pilotjob/executor_api/", "qcg_pilotjob_executor_api-")) for name in names)


@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_it_takes_the_place_of_the_released_package(built, environment, tmp_path, kind):
    install(environment, "qcg-pilotjob-executor-api==0.14.2", cwd=tmp_path)
    install(environment, *(["-e", ROOT] if kind == "editable" else [built[kind]]), cwd=tmp_path)
    pip(environment, "check", cwd=tmp_path)  # what it requires has been installed beside it
    version = (ROOT / "pyproject.toml").read_text().split('version = "')[1].split('"')[0]
    assert run(environment, "-c", FIRST, cwd=tmp_path) == f"{version} {{'a': 'SUCCEED'}}\n"
    site = Path(
        sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")})
    )
    assert not (site / "qcg/pilotjob/executor_api/_version.py").exists()  # a file of the released one
    assert (site / "qcg/pilotjob/service.py").exists()
