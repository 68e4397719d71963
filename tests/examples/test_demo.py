"""`make demo` keeps its word."""

import subprocess
import sys
from pathlib import Path

from examples.marc_import.data import generate

ROOT = Path(__file__).parents[2]


def test_the_demo(tmp_path: Path) -> None:
    records = generate(tmp_path / "invented.mrc", 12_000)
    command = [sys.executable, "-m", "examples.demo", str(records)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "attempt 2" in done.stdout
    assert done.stdout.endswith("The same counts, the same bad records, the same catalogue.\n")
