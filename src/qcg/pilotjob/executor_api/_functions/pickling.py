"""Pickle functions by value as cloudpickle does, and keep the name of the file that each of them is from.

From 3.1.3 on, cloudpickle names the file of all code that travels by value ``<dynamic-code>``, so a traceback of it has
no lines. So here code goes as in the files that Python keeps of modules, by marshal, which is quicker too. Workers run
the same version of Python, as cloudpickle needs it too. Only our own pickles are made so: cloudpickle itself is not
changed, since other libraries in the user's process use it.
"""

from __future__ import annotations

import io
import marshal
import sys
from types import CodeType, FunctionType, ModuleType
from typing import Any, Callable, Set, Tuple

import cloudpickle

from qcg.pilotjob.executor_api._functions.modules import module_from_file, object_from_file, origin_of

__all__ = ["dumps", "received_files"]

_NAMED = (type, FunctionType, ModuleType)
received_files: Set[str] = set()
"""The names of the files that the code is from which this process has received by value."""


def dumps(value: Any, *, protocol: int, buffer_callback: Callable[[Any], Any]) -> bytes:
    """Return the pickle of `value`; large buffers in it go to `buffer_callback`."""
    with io.BytesIO() as file:
        _Pickler(file, protocol=protocol, buffer_callback=buffer_callback).dump(value)
        return file.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    def reducer_override(self, obj: Any) -> Any:
        # pickle asks here before it looks into its tables of reducers, so it matters not where cloudpickle has its own
        if type(obj) is not CodeType:
            reduced = super().reducer_override(obj)
            return _from_file(obj) if reduced is NotImplemented and isinstance(obj, _NAMED) else reduced
        try:
            return _code_of, (marshal.dumps(obj),)
        except ValueError:  # among its constants is what no compiler puts there
            pass
        reduced = super().reducer_override(obj)
        if reduced is NotImplemented:
            reduced = self.dispatch_table[CodeType](obj)
        make, arguments, *rest = reduced
        return (_made_with_file, (make, arguments, obj.co_filename), *rest)


def _from_file(obj: Any) -> Any:
    """Return how to get what would be pickled by its name from a file, if that is where its module is from."""
    name = obj.__name__ if isinstance(obj, ModuleType) else obj.__module__
    origin = origin_of(name)
    if origin is None:
        return NotImplemented
    if not isinstance(obj, ModuleType):
        return object_from_file, (origin, name, obj.__qualname__)
    return (module_from_file, (origin, name)) if sys.modules.get(name) is obj else NotImplemented


# Pickles name these two functions: they are called by the process that receives the code.


def _code_of(marshalled: bytes) -> CodeType:
    code: CodeType = marshal.loads(marshalled)
    received_files.add(code.co_filename)
    return code


def _made_with_file(make: Callable[..., CodeType], arguments: Tuple[Any, ...], file: str) -> CodeType:
    received_files.add(file)
    return make(*arguments).replace(co_filename=file)
