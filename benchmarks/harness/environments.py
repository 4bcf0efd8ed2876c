"""The virtual environments of the systems: made once, used again until their pins change."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Dict, Tuple

CHECKOUT = Path(__file__).parents[2]
DEFAULT_ROOT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "qcgpj-benchmarks"

_NUMPY = "numpy==2.4.6"
PINS: Dict[str, Tuple[str, ...]] = {
    "bare": (),  # what needs the standard library only
    "ours": ("--editable", str(CHECKOUT)),
    "core": ("qcg-pilotjob==0.14.2",),
    "released": ("qcg-pilotjob-executor-api==0.14.2", "qcg-pilotjob==0.14.2"),
    "executorlib": ("executorlib==1.11.0",),
    "parsl": ("parsl==2026.10.26",),
    "dask": ("distributed==2026.8.0", "dask==2026.8.0"),
    "submitit": ("submitit==1.5.4",),
    "allocations-ours": ("--editable", f"{CHECKOUT}[allocations]"),
    "dask-jobqueue": ("dask-jobqueue==0.9.0", "distributed==2026.8.0", "dask==2026.8.0"),
    "hyperqueue": ("hyperqueue==0.27.0",),
    "pool-ours": ("--editable", f"{CHECKOUT}[functions]", _NUMPY),
    "pool-executorlib": ("executorlib==1.11.0", _NUMPY),
    "pool-parsl": ("parsl==2026.10.26", _NUMPY),
    "pool-dask": ("distributed==2026.8.0", "dask==2026.8.0", _NUMPY),
    "pool-loky": ("loky==3.7.0", _NUMPY),
    "plot": ("matplotlib==3.11.2",),
}
_INSTALL_SECONDS = 600.0


class NotMade(Exception):
    """An environment cannot be made here."""


class Environments:
    """Those below one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def python(self, name: str) -> Path:
        """Return the interpreter of an environment, which is made if need be.

        Raises:
            NotMade: it cannot be.
        """
        python = self._directory(name) / "bin" / "python"
        if not self._installed(name).exists():
            print(f"making the environment of {name} in {self._directory(name)}", file=sys.stderr, flush=True)
            _run(sys.executable, "-m", "venv", "--clear", str(self._directory(name)))
            pip = (str(python), "-m", "pip", "--disable-pip-version-check")
            if PINS[name]:
                _run(*pip, "install", "--quiet", *PINS[name])
            # written last: it stands for an environment that is complete
            self._installed(name).write_text(_run(*pip, "list", "--format", "json"))
        return python

    def packages(self, name: str) -> Dict[str, str]:
        """Return what is installed in an environment that was made."""
        return {each["name"]: each["version"] for each in json.loads(self._installed(name).read_text())}

    def _directory(self, name: str) -> Path:
        made_of = json.dumps([PINS[name], platform.python_version()])
        return self._root / f"{name}-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"

    def _installed(self, name: str) -> Path:
        return self._directory(name) / "installed.json"


def _run(*command: str) -> str:
    try:
        completed = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NotMade(f"pip has not ended within {_INSTALL_SECONDS:.0f} s") from error
    if completed.returncode:
        said = completed.stderr.strip().splitlines() or ["it says nothing"]
        raise NotMade(f"cannot be installed: {said[-1]}")
    return completed.stdout
