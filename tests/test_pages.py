"""The pages of the documentation: what stands there runs, and prints what stands there."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if re.search("^```[a-z]", page.read_text(), re.MULTILINE)
]
_NEEDS = re.compile(r"<!--\s*page needs:\s*(.*?)\s*-->")


def _needs(page):
    return [need for line in _NEEDS.findall(page.read_text()) for need in line.split(", ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_page_runs(page, tmp_path):
    for need in _needs(page):
        if importlib.util.find_spec(need) is None:
            pytest.skip(f"{need} is not installed")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "tests" / "page.py", page],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
