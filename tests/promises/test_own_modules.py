"""Files of the user's that are called like modules of Python's or of ours do not reach the processes that we start."""

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import qcg.pilotjob.executor_api as api

RUN = """
    from qcg.pilotjob.executor_api import Allocation, BasicTemplate, QCGPJExecutor
    with QCGPJExecutor(wd="wd", {options}) as executor:
        assert executor.submit(BasicTemplate, name="a", exec="true").result(60) == {{"a": "SUCCEED"}}
"""
FUNCTIONS = """
    import mine
    from qcg.pilotjob.executor_api import QCGPJExecutor
    with QCGPJExecutor(wd="wd", resources=1) as executor:
        assert executor.functions().submit(mine.doubled, 3).result(60) == 6
"""
LOADED = """
    import sys
    print(*sys.modules)
"""


@pytest.fixture
def run_beside(tmp_path):
    """Run a program with a module of the user's beside it for each of Python's that the program does without."""

    def run(source, *options, env=None):
        source = textwrap.dedent(source)
        script = tmp_path / "script.py"
        script.write_text(source + textwrap.dedent(LOADED))
        loaded = _run(script, *options).stdout.split()
        for name in sys.stdlib_module_names - set(loaded) - set(sys.builtin_module_names):
            if importlib.util.find_spec(name) is None:
                continue  # what there is on other systems only, is looked for here, and not found
            (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')")
        script.write_text(source)
        return _run(script, *options)

    return run


def _run(script, *options):
    done = subprocess.run(
        [sys.executable, *options, script], cwd=script.parent, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


needs_names = pytest.mark.skipif(sys.version_info < (3, 10), reason="Python tells its modules' names from 3.10 on")


@needs_names
def test_beside_the_script(run_beside):
    run_beside(RUN.format(options="resources=1"))


@needs_names
@pytest.mark.skipif(importlib.util.find_spec("psij") is None, reason="psij-python is not installed")
def test_beside_the_script_with_an_allocation(run_beside):
    run_beside(RUN.format(options="allocation=Allocation(scheduler='local', cores_per_node=1, poll=1.0)"))


@needs_names
def test_beside_the_script_with_functions(run_beside, tmp_path):
    (tmp_path / "mine.py").write_text("def doubled(x):\n    return 2 * x\n")
    run_beside(FUNCTIONS)


@pytest.mark.parametrize("name", ["queue", "uuid", "glob"])
def test_in_the_current_directory_that_stands_in_pythonpath(tmp_path, run_script, name):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    program = textwrap.dedent(RUN.format(options="resources=1"))
    source = f"import sys, {name}\n"  # the program has Python's own, from elsewhere
    source = f"import sys\npath, sys.path[:] = sys.path[:], [p for p in sys.path if p and p != {str(tmp_path)!r}]\n"
    source += f"import concurrent.futures.thread, {name}\nsys.path[:] = path\n{program}"
    run_script(source, env={"PYTHONPATH": ":"})


def test_the_package_is_the_one_of_the_program_also_when_it_is_beside_the_script(tmp_path):
    source = Path(api.__file__).parents[3]
    (tmp_path / "qcg").symlink_to(source / "qcg")
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys
            from qcg.pilotjob.executor_api import QCGPJExecutor
            from qcg.pilotjob.executor_api._shared import python_process as boot
            with QCGPJExecutor(wd="wd", resources=1) as executor:
                pid = executor._connection.dispatcher.link.process.pid
            path = boot.protected_path()
            here = os.path.dirname(os.path.abspath(__file__))
            assert path.index(here) < path.index(%r), path
            """
        )
        % str(source)
    )
    _run(script)


def test_where_workers_with_an_interpreter_of_their_own_work(tmp_path):
    for name in ("cloudpickle", "json", "colorsys"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')")
    (tmp_path / "mine.py").write_text("def doubled(x):\n    return 2 * x\n")

    def call(x):
        import colorsys

        import mine

        assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)
        return mine.doubled(x)

    with api.QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        assert executor.functions(python=sys.executable).submit(call, 3).result(60) == 6
