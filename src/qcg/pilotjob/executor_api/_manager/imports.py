"""Put off what the manager process need not load to be ready, though it and the core import it."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

__all__ = ["defer", "import_asyncio_without_ssl"]


def defer(name: str) -> None:
    """Have ``import name`` load the module when something of it is first used.

    ``importlib.util.LazyLoader`` does not do: up to Python 3.11 an import statement counts as a use.
    """
    if name in sys.modules:
        return
    module = ModuleType(name)

    def first_use(attribute: str) -> Any:
        if sys.modules.get(name) is module:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    vars(module)["__getattr__"] = first_use
    sys.modules[name] = module


def import_asyncio_without_ssl() -> None:
    """Import asyncio as it is in a Python that has no ssl, which it provides for: nothing here speaks TLS."""
    if "ssl" in sys.modules:
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]  # so an import of it raises ImportError
    try:
        importlib.import_module("asyncio")
    finally:
        del sys.modules["ssl"]
