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
