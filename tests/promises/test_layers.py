"""The rooms of the package: imports go down only, no two files import each other, a process loads what is its own."""

import ast
from pathlib import Path

import pytest

import qcg.pilotjob.executor_api as api

ROOT = Path(api.__file__).parent
ROOMS = (  # from the bottom up: a file imports what is in its own room, or below
    ("_shared.texts",),
    ("errors", "jobs"),
    ("_shared", "call_errors"),
    ("_description",),
    ("templates", "allocation", "qcgpj_future"),
    ("_client", "_processes"),
    ("_agent", "_allocation", "_functions"),
    ("_execution", "progress_bars"),
    ("_manager", "_record"),
    ("functions", "run_record"),
    ("qcgpj_executor",),
    ("_command", ""),
)
PROCESSES = {  # what a process has loaded when it is ready
    "_manager.__main__": {"errors", "jobs", "_shared", "_processes", "_agent", "_execution", "_manager"},
    "_agent.agent": {"errors", "jobs", "_shared", "_processes", "_agent"},
    "_processes.starter": {"errors", "jobs", "_shared", "_processes"},
    "_allocation.guard": {"errors", "jobs", "_shared", "_allocation"},
    "_functions.worker": {"errors", "jobs", "_shared", "_functions"},
    "qcgpj_executor": {"errors", "jobs", "_shared", "_client", "qcgpj_executor"},
}


def _name(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name[: -len("__init__")].rstrip(".") if name.endswith("__init__") else name


MODULES = {_name(path): path for path in ROOT.rglob("*.py")}


def _imports(path, *, at_start=False):
    """Return the modules of this package that a file imports; `at_start` only those that it loads when it is loaded."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if not at_start else iter(tree.body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(api.__name__):
            module = node.module[len(api.__name__) :].lstrip(".")
            for alias in node.names:
                name = f"{module}.{alias.name}".lstrip(".")
                found.add(name if name in MODULES else module)
    return found - {_name(path)}


def _room(module):
    return module.partition(".")[0]


def _level(module):
    return LEVELS[module if module in LEVELS else _room(module)]


IMPORTS = {module: _imports(path) for module, path in MODULES.items()}
LEVELS = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}


def test_imports_go_down():
    up = [
        f"{module} imports {imported}"
        for module, all_imported in IMPORTS.items()
        for imported in all_imported
        if _room(module) != _room(imported) and _level(imported) >= _level(module)
    ]
    assert not up


def test_no_files_import_each_other():
    left = {module: set(imported) for module, imported in IMPORTS.items()}
    while left:
        leaves = {module for module, imported in left.items() if not imported & left.keys()}
        assert leaves, f"circles among {sorted(left)}"
        left = {module: imported for module, imported in left.items() if module not in leaves}


@pytest.mark.parametrize("entry", PROCESSES)
def test_a_process_loads_the_rooms_of_its_own(entry):
    loaded, new = set(), {entry}
    while new:
        loaded |= new
        new = {name for module in new for name in _imports(MODULES[module], at_start=True)} - loaded
    assert {_room(module) for module in loaded} <= PROCESSES[entry]


def test_files_have_one_subject_and_rooms_are_not_full():
    lines = {module: path.read_text(encoding="utf-8").count("\n") for module, path in MODULES.items()}
    assert {module: count for module, count in lines.items() if count > 450} == {}
    rooms = {room: sum(_room(module) == room for module in MODULES) for room in ("_client", "_manager")}
    assert {room: count for room, count in rooms.items() if count > 18} == {}
