"""Print which installed packages have another version than the lock has: where to look first when tests fail."""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path


def main() -> None:
    locked: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", Path(sys.argv[1]).read_text(), re.MULTILINE):
        locked.setdefault(_normal(name), set()).add(version)
    for found in sorted(distributions(), key=lambda found: _normal(found.metadata["Name"])):
        versions = locked.get(_normal(found.metadata["Name"]))
        if versions is not None and found.version not in versions:
            print(f"{found.metadata['Name']} {found.version}, locked {', '.join(sorted(versions))}")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


main()
