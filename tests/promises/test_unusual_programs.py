"""Programs whose standard streams are closed, and those that are no ordinary Python program."""

import subprocess
import sys
import textwrap

import pytest

CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("closed", CLOSED)
def test_closed_standard_streams(tmp_path, closed):
    program = """
        from pathlib import Path
        from qcg.pilotjob.executor_api import BasicTemplate, QCGPJExecutor

        with QCGPJExecutor(wd="wd", resources=1) as executor:
            job = executor.submit(BasicTemplate, name="a", exec="echo", args=["words"], stdout="a.out")
            told = job.result(60), executor.functions().submit(pow, 2, 3).result(60)
        Path("told").write_text(f"{told} {Path('wd/a.out').read_text()}")
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    ran = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} program.py {closed}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (tmp_path / "told").read_text() == "({'a': 'SUCCEED'}, 8) words\n"


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_a_program_whose_threads_were_replaced(tmp_path, run_script, library):
    (tmp_path / f"{library}.py").write_text("def start_new_thread(*_): raise AssertionError('a thread was started')")
    run = run_script(
        f"""
        import sys
        sys.path.insert(0, ".")
        import _thread, {library}
        from qcg.pilotjob.executor_api import ManagerStartError, QCGPJExecutor

        _thread.start_new_thread = {library}.start_new_thread
        try:
            QCGPJExecutor(wd="wd")
        except ManagerStartError as error:
            print(error)
        """,
        timeout=60,
    )
    assert run.stdout.startswith(f"{library} has replaced this program's threads")
    assert not (tmp_path / "wd").exists()


@pytest.mark.parametrize(
    "kind", ["sys.frozen, sys.executable = True, '/nowhere/program'", "sys.executable = None", "sys.executable = ''"]
)
def test_a_program_that_is_no_interpreter(run_script, kind):
    run = run_script(
        f"""
        import multiprocessing, sys
        from qcg.pilotjob.executor_api import Allocation, ManagerStartError, QCGPJExecutor

        python = sys.executable
        {kind}
        for options in ({{}}, {{"allocation": Allocation(scheduler="local", walltime="5m")}}):
            try:
                QCGPJExecutor(wd="wd", **options)
            except ManagerStartError as error:
                print(str(error).splitlines()[0])
        multiprocessing.set_executable(python)
        with QCGPJExecutor(wd="wd", resources=1) as executor:
            print(executor.functions().submit(pow, 2, 3).result(60))
        """,
        timeout=120,
    )
    refused = "this program is no Python interpreter, and the manager needs one"
    assert run.stdout.splitlines() == [refused, refused, "8"]
