"""The demo, with less data: it runs to its end, tells its figures, and leaves nothing running."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "deploy" / "demo" / "demo.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_prunes_a_real_model_and_beats_one_shot(tmp_path: Path):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SECATEUR_", "AWS_"))}
    done = subprocess.run(
        [sys.executable, str(DEMO), "--fast", "--json"],
        cwd=tmp_path,
        env={**env, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["sparsity"] == pytest.approx(0.8, abs=1e-3)
    assert figures["one_shot"] < figures["iterative"] <= 1
    assert figures["macs_removed"] >= 0.5
    assert figures["failures"] == []
    for page in figures["pages"]:
        assert "<html" in (tmp_path / page).read_text()
    assert list(tmp_path.glob("secateur-*")) == [], "the service's folder is still there"
    assert not _works_below(tmp_path)


def _works_below(folder: Path) -> list[str]:
    """Processes whose working folder is in there."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            target = link.readlink()
        except OSError:  # it ended while we looked
            continue
        if target.is_relative_to(folder):
            found.append(str(link))
    return found
