"""Find the modules of functions and classes that are pickled by their names: the receiver has to find them too.

A module that the sender has loaded from a file, by ``importlib.util.spec_from_file_location``, is found by no name. So
its file goes with what is pickled, and the receiver loads that file, under the same name. Directories that the sender
has added to ``sys.path`` since the receiver was started go with each call.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import Any, Dict, List, Optional, Tuple

__all__ = ["SearchPath", "module_from_file", "object_from_file", "origin_of", "path_here"]

Origin = Tuple[str, str, Optional[List[str]]]
"""A module's name, its file and, of a package, its directories."""

_origins: Dict[str, Tuple[ModuleType, Optional[Origin]]] = {}


def origin_of(name: Any) -> Optional[Origin]:
    """Return what has to be loaded before a module can be imported by its name; None when nothing has to be."""
    if not isinstance(name, str):
        return None
    top = name.partition(".")[0]
    if top not in sys.modules:  # a module may be loaded as "a.b", and there is no "a"
        top = name
    module = sys.modules.get(top)
    if not isinstance(module, ModuleType):
        return None
    known = _origins.get(top)
    if known is None or known[0] is not module:
        known = _origins[top] = module, _file_only(top, module)
    return known[1]


def _file_only(name: str, module: ModuleType) -> Optional[Origin]:
    spec = getattr(module, "__spec__", None)
    if spec is None or not spec.has_location or not isinstance(spec.origin, str) or name == "__main__":
        return None  # built into Python, made by hand, or the script itself, which cloudpickle sends by value
    found = _found_by_name(name)
    if found is not None and (found.origin is None or os.path.realpath(found.origin) == os.path.realpath(spec.origin)):
        return None
    directories = spec.submodule_search_locations
    return name, os.path.abspath(spec.origin), directories and [os.path.abspath(each) for each in directories]


def _found_by_name(name: str) -> Any:
    """Return the spec that a fresh interpreter would find, None when there is none."""
    if "." in name:
        return None
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = None if find is None else find(name, None)
        if spec is not None:
            return spec
    return None


# Pickles name these: they are called by the process that receives them.


def module_from_file(origin: Origin, name: str) -> ModuleType:
    """Return the module `name`, after the one of `origin` was loaded from its file."""
    top, file, directories = origin
    there = sys.modules.get(top)
    spec = getattr(there, "__spec__", None)
    if spec is None or not isinstance(spec.origin, str) or os.path.realpath(spec.origin) != os.path.realpath(file):
        _load(top, file, directories)
    return importlib.import_module(name)


def object_from_file(origin: Origin, name: str, qualified_name: str) -> Any:
    """Return a function or a class of a module as `module_from_file` does."""
    found: Any = module_from_file(origin, name)
    for part in qualified_name.split("."):
        found = getattr(found, part)
    return found


def _load(name: str, file: str, directories: Optional[List[str]]) -> None:
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=directories)
    if spec is None or spec.loader is None:  # the name of the file does not tell what it is
        loader = SourceFileLoader(name, file)
        spec = importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=directories)
    if spec is None or spec.loader is None:
        raise ImportError(f"the module {name!r} cannot be loaded from {file}", name=name, path=file)
    for other in [loaded for loaded in sys.modules if loaded == name or loaded.startswith(f"{name}.")]:
        del sys.modules[other]  # of another file
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


class SearchPath:
    """Directories of ``sys.path``: where it is unpickled, those that are missing are added to it."""

    def __init__(self, directories: List[str]) -> None:
        self._directories = directories

    def __reduce__(self) -> Any:
        return _add_to_path, (self._directories,)


def path_here() -> List[str]:
    """Return this process's ``sys.path``, as others can use it."""
    return [os.path.abspath(entry) for entry in sys.path]


def _add_to_path(directories: List[str]) -> None:
    """Add the directories that are missing, each before the one that it stands before in the sender's path."""
    place = len(sys.path)
    for directory in reversed(directories):
        if directory in sys.path:
            place = sys.path.index(directory)
        else:
            sys.path.insert(place, directory)
