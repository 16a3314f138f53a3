"""Test the alerts of the chart with promtool: `python -m harness.alerts`.

promtool is built from the Go module in the folder `promtool`, once; that takes some minutes of processor time.
"""

import subprocess
import sys
from pathlib import Path

from harness import binaries

ROOT = Path(__file__).parents[2]
RULES = ROOT / "manifests/chart/rules/rescheduler.yaml"
TESTS = ROOT / "tests/alerts/rescheduler_test.yaml"


def main() -> int:
    """Check the rules, and run their tests. Return the exit code."""
    try:
        binaries.ensure(["promtool"])
        promtool = str(binaries.path("promtool"))
    except binaries.MissingBinariesError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    commands = (["check", "rules", "--lint=all", "--lint-fatal", str(RULES)], ["test", "rules", str(TESTS)])
    return max(subprocess.run([promtool, *command], check=False).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main())
