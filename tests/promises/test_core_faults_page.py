"""The list of the core's faults: each number of a docstring is explained there, with what mends it and a test."""

import re
from pathlib import Path

import qcg.pilotjob.executor_api as api

SOURCE = Path(api.__file__).parent
TESTS = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (TESTS.parent / "docs" / "core_faults.md").read_text().splitlines()
    if re.match(r"\| C\d+ ", line)
]


def test_each_number_stands_on_both_sides():
    given = {number for path in SOURCE.rglob("*.py") for number in re.findall(r"\bC\d+\b", path.read_text())}
    listed = [row[0] for row in ROWS]
    assert len(listed) == len(set(listed))
    assert given == set(listed)


def test_what_mends_a_fault_gives_its_number():
    for number, _, _, mended, _ in ROWS:
        files = re.findall(r"`([\w/]+\.py)`", mended)
        assert files, number
        assert any(re.search(rf"\b{number}\b", (SOURCE / file).read_text()) for file in files), number


def test_each_fault_has_a_test():
    functions = set(re.findall(r"def (test_\w+)\(", (TESTS / "promises" / "test_core_faults.py").read_text()))
    for number, _, _, _, tests in ROWS:
        for test in re.findall(r"`([^`]+)`", tests):
            assert test in functions or (TESTS.parent / test).exists(), f"{number}: {test}"
