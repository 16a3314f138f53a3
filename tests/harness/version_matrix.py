"""Run end-to-end tests on each supported version of Kubernetes: `python -m harness.version_matrix [VERSION…]`.

The tests with the marker `every_version` run. Their results are kept in `kubernetes-results.json`, from which the table
of docs/reference/support-matrix.md is generated.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from harness import binaries

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "kubernetes-results.json"
MARKER = "every_version"
SUBJECTS = (
    "installation",
    "maintenance",
    "failed nodes",
    "replacement first",
    "plans",
    "rebalancing",
    "limits of writes",
    "pools",
    "reports of what is off",
)
"""What the tests are about, in the order of the table; the marker of a test names one of them."""
_TESTS_FAILED = 1  # exit code of pytest; a larger one means that the tests did not run


class VersionError(Exception):
    """The tests did not run on a version; the message says why."""


@dataclass(slots=True)
class Outcome:
    """The tests of one subject on one version: how many passed, and the names of those that failed."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.failed:
            return f"{self.passed} passed"
        names = ", ".join(f"`{name}`" for name in self.failed)
        return f"**{len(self.failed)} of {self.passed + len(self.failed)} failed**: {names}"


@dataclass(frozen=True, slots=True)
class VersionResult:
    """The results on one version; `server`: the version that the API server reports, such as v1.33.13."""

    server: str
    subjects: Mapping[str, Outcome]

    @property
    def failed(self) -> list[str]:
        """Return the names of all tests that failed."""
        return [name for outcome in self.subjects.values() for name in outcome.failed]


def is_selected(since: str) -> bool:
    """Whether KUBERNETES_VERSION selects this minor version or a newer one; an empty one is older than all."""
    return not since or _number(binaries.kubernetes_version()) >= _number(since)


def _number(minor: str) -> tuple[int, ...]:
    return tuple(map(int, minor.split(".")))


def read_results() -> dict[str, VersionResult]:
    """Return the results by minor version."""
    raw = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return {
        minor: VersionResult(found["server"], {name: Outcome(**row) for name, row in found["subjects"].items()})
        for minor, found in raw.items()
    }


def write_results(results: Mapping[str, VersionResult]) -> None:
    """Write the results of the versions that the tests can still run on."""
    known = [minor for minor in binaries.kubernetes_versions() if minor in results]
    RESULTS.write_text(json.dumps({minor: asdict(results[minor]) for minor in known}, indent=1) + "\n")


def parse_report(report: str) -> dict[str, Outcome]:
    """Return the outcomes by subject of a JUnit report. A skipped test is none. Raises VersionError."""
    found: dict[str, Outcome] = {}
    for case in ET.fromstring(report).iter("testcase"):
        if case.find("skipped") is not None:
            continue
        name = case.get("name") or ""
        subject = next((each.get("value") for each in case.iter("property") if each.get("name") == "subject"), None)
        if not subject:
            raise VersionError(f"{name} has no subject: its process ended")
        outcome = found.setdefault(subject, Outcome())
        if case.find("failure") is None and case.find("error") is None:
            outcome.passed += 1
        elif name not in outcome.failed:  # a test and its cleanup may both fail
            outcome.failed.append(name)
    return found


def test(minor: str) -> VersionResult:
    """Run the tests on a version. Raises VersionError, and MissingBinariesError if the version cannot be built."""
    os.environ["KUBERNETES_VERSION"] = minor
    binaries.ensure()
    command = [str(binaries.path("kube-apiserver")), "--version"]
    server = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    if not server.startswith(f"v{minor}."):
        raise VersionError(f"KUBEBUILDER_ASSETS has kube-apiserver {server}: unset it")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", MARKER, "-n", "4", "--dist", "loadfile"]
        command += ["--no-loadscope-reorder", f"--junitxml={report}", "tests/e2e"]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code > _TESTS_FAILED:
            raise VersionError(f"pytest ended with exit code {code}")
        return VersionResult(server, parse_report(report.read_text()))


def versions_table() -> str:
    """Return the table of the support matrix: a column for each version, the newest first, and a row for each subject."""
    columns = {f"Kubernetes {minor}": read_results().get(minor) for minor in reversed(binaries.kubernetes_versions())}
    rows = [("", *columns), ("tested", *(found.server if found else "not run" for found in columns.values()))]
    rows += [
        (name, *(str(found.subjects.get(name, "off")) if found else "" for found in columns.values()))
        for name in SUBJECTS
    ]
    head, *others = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join((head, "|---" * len(rows[0]) + "|", *others))


def main(minors: Sequence[str]) -> int:
    """Run the tests on these versions, or on all, and write the results. Return the exit code.

    A version on which the tests did not run loses its earlier results.
    """
    known = list(binaries.kubernetes_versions())
    if unknown := [minor for minor in minors if minor not in known]:
        sys.stderr.write(f"unknown versions of Kubernetes: {', '.join(unknown)}; known are {', '.join(known)}\n")
        return 2
    failed = []
    for minor in minors or known:
        sys.stderr.write(f"Kubernetes {minor}\n")
        results = read_results()
        results.pop(minor, None)
        try:
            results[minor] = test(minor)
            failed += [f"Kubernetes {minor}: {name}" for name in results[minor].failed]
        except (VersionError, binaries.MissingBinariesError) as error:
            failed.append(f"Kubernetes {minor}: {error}")
        write_results(results)
    sys.stderr.write("".join(f"{line}\n" for line in failed))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
