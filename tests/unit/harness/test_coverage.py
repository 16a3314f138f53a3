"""Coverage of the operator by the tests, compared with its floor."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("floor", "status", "errors"),
    [
        ("90", 0, ""),
        ("90.5", 1, "not covered: 3 lines and branches of b.py\nnot covered: 1 lines and branches of a.py\n"),
    ],
)
def test_coverage_below_the_floor_fails_and_names_the_files(
    tmp_path: Path, floor: str, status: int, errors: str
) -> None:
    files = {
        "a.py": {"missing_lines": [7], "missing_branches": []},
        "b.py": {"missing_lines": [1, 2], "missing_branches": [[1, 2]]},
    }
    report = tmp_path / "coverage.json"
    report.write_text(json.dumps({"files": files, "summary": {"percent_covered": 90.0}}))
    command = [sys.executable, "-m", "harness", "coverage", str(report), "--floor", floor]
    ended = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (status, errors)
    assert ended.stdout == f"Lines and branches covered: 90.0% (at least {floor}%)\n"
