"""The pages of the documentation that need a cluster, from its login node."""

import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "<!-- needs: Slurm" in page.read_text()
]


@pytest.fixture
def commands(tmp_path_factory):
    """A directory with the commands of this environment; it may have a mpirun too, which is not the cluster's."""
    directory = tmp_path_factory.mktemp("bin")
    for path in Path(sys.executable).parent.glob("qcg-pm-*"):
        (directory / path.name).symlink_to(path)
    (directory / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (directory / "python").chmod(0o755)
    return directory


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.usefixtures("outside", "mpi_program")
def test_the_page_runs_on_a_cluster(page, commands, for_mpi, read_page):
    read_page(page, "--slurm", commands=commands, env=for_mpi, timeout=240)
