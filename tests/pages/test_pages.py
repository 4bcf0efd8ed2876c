"""The pages of the documentation: what stands there runs, and prints what stands there."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if re.search("^```[a-z]", page.read_text(), re.MULTILINE)
]
_NEEDS = re.compile(r"<!--\s*page needs:\s*(.*?)\s*-->")


def _needs(page):
    return [need for line in _NEEDS.findall(page.read_text()) for need in line.split(", ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_page_runs(page, read_page):
    for need in _needs(page):
        if importlib.util.find_spec(need) is None:
            pytest.skip(f"{need} is not installed")
    read_page(page, commands=Path(sys.executable).parent, timeout=120)


def test_the_blocks_of_pages_are_no_wider_than_the_column_of_the_site():
    blocks = [
        (page, token.content)
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for token in MarkdownIt().parse(page.read_text())
        if token.type in {"fence", "code_block"}
    ]
    assert len(blocks) > 100
    assert [(page.name, line) for page, text in blocks for line in text.splitlines() if len(line) > 88] == []


def test_a_newcomer_can_read_the_readme_whole():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
