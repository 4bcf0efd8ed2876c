"""Paths that pages and docstrings name: there is such a file."""

import re
from pathlib import Path

import pytest

import qcg.pilotjob.executor_api as api

ROOT = Path(__file__).parents[2]
SOURCE = Path(api.__file__).parent
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *SOURCE.rglob("*.py")]
ROOMS = "|".join(path.name for path in SOURCE.iterdir() if path.is_dir())


@pytest.mark.parametrize("text", [path for path in TEXTS if path.name != "changelog.md"], ids=lambda path: path.name)
def test_what_is_named_is_there(text):
    said = text.read_text(encoding="utf-8")
    tests = re.findall(r"(?<![\w/])(?:tests|tools|examples|benchmarks)/[\w/]+\.(?:py|sh)", said)
    assert not [path for path in tests if not (ROOT / path).exists()]
    ours = re.findall(rf"(?<![\w/.])(?:{ROOMS})/[\w/]+\.py", said)
    assert not [path for path in ours if not (SOURCE / path).exists()]
