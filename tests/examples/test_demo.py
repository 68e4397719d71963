"""`make demo` keeps its word."""

import os
import subprocess
import sys
from pathlib import Path

from examples.marc_import.data import generate

ROOT = Path(__file__).parents[2]


def test_the_demo(tmp_path: Path) -> None:
    records = generate(tmp_path / "invented.mrc", 40_000)
    command = [sys.executable, "-m", "examples.demo", str(records)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    display, _, truths = done.stdout.partition("\n\n")
    for name, end in {
        "Import MARC records": "attempt 2",
        "Copy with ": "COMPLETED",
        "Pack with gzip": "MB (100 %)",
        "Send overdue notices": "CANCELLED",
        "make demo": "6/6 scenes",
    }.items():
        assert any(name in line and end in line for line in display.splitlines()), name
    assert len(truths.splitlines()) == 8
    assert all(line.startswith("✓ ") for line in truths.splitlines())
    assert list(tmp_path.iterdir()) == [records], "nothing is left behind"
