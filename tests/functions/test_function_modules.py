"""Modules that a program has found in its own way: the workers of its pools find them too."""

import importlib.util
import sys

import pytest

from qcg.pilotjob.executor_api import CallUnreadable

SOURCE = """
class Point:
    def __init__(self, x):
        self.x = x
    def double(self):
        return Point(2 * self.x)
class Odd(Exception):
    pass
def make(x):
    return Point(x)
def fail():
    raise Odd("it is odd")
"""


MODULES = ("from_a_file", "model_1", "plugins.a", "colorsys", "deep", "deep.below", "late_module", "later_module")


@pytest.fixture
def forget_modules(monkeypatch):
    """Have sys.path, and those of sys.modules that are loaded here, as they were after the test."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    yield
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.modules.update(before)


@pytest.fixture
def load(tmp_path, forget_modules):
    """A function that loads a module from a file, as programs with plug-ins do."""

    def load(file, name="from_a_file", source=SOURCE, **options):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(name, path, **options)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize(("file", "name"), [("model-1.py", "model_1"), ("a.py", "plugins.a"), ("json.py", "colorsys")])
def test_a_module_that_was_loaded_from_a_file(executor, load, file, name):
    module = load(f"plug-ins/{file}", name)
    pool = executor.functions(1)
    assert pool.submit(module.make, 3).result(30).x == 3
    assert type(pool.submit(module.make, 3).result(30)) is module.Point
    assert pool.submit(lambda point: point.x, module.Point(4)).result(30) == 4
    assert pool.submit(module.Point(5).double).result(30).x == 10
    assert pool.submit(lambda: module.make(6)).result(30).x == 6
    with pytest.raises(module.Odd, match="it is odd"):
        pool.submit(module.fail).result(30)


def test_a_package_that_was_loaded_from_a_file(executor, load, tmp_path):
    package = tmp_path / "plug-ins" / "deep"
    package.mkdir(parents=True)
    (package / "below.py").write_text(SOURCE)
    load("plug-ins/deep/__init__.py", "deep", "", submodule_search_locations=[str(package)])
    below = importlib.import_module("deep.below")
    assert executor.functions(1).submit(below.make, 3).result(30).x == 3


def test_a_newer_file_of_the_same_name(executor, load):
    pool = executor.functions(1)
    older = load("one/model.py", source="def f():\n    return 1")
    assert pool.submit(older.f).result(30) == 1
    newer = load("two/model.py", source="def f():\n    return 2")
    assert pool.submit(newer.f).result(30) == 2


def test_a_file_that_is_no_module_any_more(executor, load, tmp_path):
    module = load("model.py")
    (tmp_path / "model.py").write_text("raise RuntimeError('changed')")
    pool = executor.functions(1)
    with pytest.raises(CallUnreadable, match="changed"):
        pool.submit(module.make, 3).result(30)
    assert pool.submit(pow, 2, 3).result(30) == 8


@pytest.mark.parametrize("where", ["before", "behind"])
def test_directories_that_are_added_to_the_path_after_the_pool_began(executor, tmp_path, forget_modules, where):
    pool = executor.functions(1)
    assert pool.submit(pow, 2, 3).result(30) == 8
    for number, name in enumerate(("late_module", "later_module")):
        directory = tmp_path / f"added{number}"
        directory.mkdir()
        (directory / f"{name}.py").write_text(SOURCE)
        sys.path.insert(0 if where == "before" else len(sys.path), str(directory))
        module = importlib.import_module(name)
        assert pool.submit(module.make, 3).result(30).x == 3
        assert executor.functions(1).submit(module.make, 3).result(30).x == 3
    found = pool.submit(lambda: sys.path).result(30)
    assert [entry for entry in found if entry in sys.path] == [entry for entry in sys.path if entry in found]
