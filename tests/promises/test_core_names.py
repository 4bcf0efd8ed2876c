"""The names of the core that this package relies on: all stand in one table, and a core without one is refused."""

import ast
import importlib
import inspect
import textwrap
from pathlib import Path

import pytest

import qcg.pilotjob.executor_api as api
from qcg.pilotjob.executor_api import BasicTemplate, ManagerStartError, QCGPJExecutor
from qcg.pilotjob.executor_api._shared.core_names import OF_CLIENT, OF_MANAGER, missing_names

ROOT = Path(api.__file__).parent
TABLE = {**OF_MANAGER, **OF_CLIENT}


def _is_core(cls):
    return cls.__module__.startswith("qcg.pilotjob") and not cls.__module__.startswith(api.__name__)


def _classes():
    """Yield our classes that have one of the core among their bases, with these."""
    for room in ("_client", "_execution", "_manager", "_processes"):
        for path in sorted((ROOT / room).glob("[!_]*.py")):
            if path.stem == "pilot":  # is a program
                continue
            module = importlib.import_module(f"{api.__name__}.{room}.{path.stem}")
            for cls in vars(module).values():
                if inspect.isclass(cls) and cls.__module__ == module.__name__ and any(map(_is_core, cls.__mro__)):
                    yield cls, [base for base in cls.__mro__ if _is_core(base)]


def _tree(cls):
    return ast.parse(textwrap.dedent(inspect.getsource(cls)))


def _of_self(tree, context):
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, context))
    return {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "self"}


def test_each_name_that_a_subclass_overrides_or_reads_stands_in_the_table():
    found = list(_classes())
    assert len(found) > 10
    for cls, cores in found:
        known = {name.lstrip(".") for core in cores for name in TABLE.get(f"{core.__module__}.{core.__qualname__}", ())}
        overridden = {name for name in vars(cls) if any(hasattr(core, name) for core in cores)}
        assert not {name for name in overridden if not name.startswith("__")} - known, cls
        ours = [base for base in cls.__mro__ if base.__module__.startswith(api.__name__)]
        own = {name for base in ours for name in {*vars(base), *_of_self(_tree(base), ast.Store)}}
        assert not {name for name in _of_self(_tree(cls), ast.Load) - own if not name.startswith("__")} - known, cls


def test_the_core_has_all_names():
    for place in TABLE:
        module, _, owner = place.rpartition(".")
        importlib.import_module(module if owner[:1].isupper() else place)
    assert not list(missing_names(TABLE))


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ("from qcg.pilotjob.manager import DirectManager as c; del c.cancel_job", "DirectManager.cancel_job"),
        ("import qcg.pilotjob.parseres as c; del c.parse_local_resources", "parseres.parse_local_resources"),
        ("from qcg.pilotjob.service import QCGPMService as c; del c._setup_tracker", "QCGPMService._setup_tracker"),
        ("import qcg.pilotjob.manager as c; del c.SchedulingJob", "SchedulingJob"),
        ("import qcg.pilotjob.executor as c; c.Executor.__init__ = lambda *_: None", "Executor.base_wd"),
    ],
)
def test_a_core_without_one_is_refused(tmp_path, monkeypatch, change, missing):
    # read by each Python process at its start; only in the manager's it loads the core
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nif 'qcgpj-manager' in open('/proc/self/cmdline').read():\n    {change}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ManagerStartError) as refused:
        QCGPJExecutor(wd=tmp_path / "wd", resources=1)
    assert missing in str(refused.value)
    assert "pip install 'qcg-pilotjob~=" in str(refused.value)


def test_a_client_without_one_is_refused(executor, monkeypatch):
    from qcg.pilotjob.api.manager import Manager

    monkeypatch.delattr(Manager, "_assure_connected")
    with pytest.raises(ManagerStartError, match=r"Manager\._assure_connected"):
        executor.qcgpj_manager.resources()
    assert executor.submit(BasicTemplate, name="a", exec="true").result(20) == {"a": "SUCCEED"}
