"""The site that ``make docs`` builds; where Sphinx is installed."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="Sphinx is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    path = tmp_path_factory.mktemp("site")
    options = ["-q", "-W", "--keep-going", "-b", "html", "-d", path / "doctrees"]
    subprocess.run([sys.executable, "-m", "sphinx", *options, ROOT / "docs", path / "html"], check=True, timeout=300)
    return path / "html"


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("executor", "QCGPJExecutor.submit"),
        ("executor", "QCGPJExecutor.map"),
        ("executor", "QCGPJFuture.add_done_callback"),
        ("functions", "FunctionPool.map"),
        ("functions", "FunctionFuture.result"),
        ("functions", "FunctionFuture.add_done_callback"),
        ("jobs", "Iteration.values"),
        ("jobs", "IterationInfo"),
        ("errors", "errors.JobFailed"),
    ],
)
def test_the_reference_has_what_users_use(site, page, name):
    assert f'id="qcg.pilotjob.executor_api.{name}"' in (site / "reference" / f"{page}.html").read_text()


def test_the_reference_takes_no_words_of_a_docstring_for_a_type(site):
    pages = sorted((site / "reference").glob("*.html"))
    assert len(pages) >= 7
    assert [page.name for page in pages if re.search(r">Type<", page.read_text())] == []


def test_the_reference_of_descriptions_begins_with_the_job(site):
    first = re.search(r'id="qcg\.pilotjob\.executor_api\.(\w+)"', (site / "reference" / "jobs.html").read_text())
    assert first is not None
    assert first.group(1) == "Job"


def test_the_site_shows_the_version(site):
    version = importlib.metadata.version("qcg-pilotjob-executor-api")
    assert re.search(rf'class="sidebar-brand-text">[^<]* {re.escape(version)}<', (site / "index.html").read_text())


def test_pictures_of_runs_are_on_the_page_about_pictures(site):
    text = (site / "records.html").read_text()
    assert {"timeline.png", "utilisation.png"} <= set(re.findall(r'src="_images/([^"]*)"', text))
