"""The files of a release."""

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from harness.release import artifacts

METADATA = """Metadata-Version: 2.4
Name: rescheduler
Version: 0.2.0
Requires-Python: >=3.11
License-Expression: Apache-2.0
Description-Content-Type: text/markdown

# Rescheduler
"""


def package(folder: Path, kind: str, metadata: str) -> Path:
    """Return a wheel or an sdist with this metadata."""
    path = folder / f"rescheduler-0.2.0{kind}"
    if kind == ".whl":
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("rescheduler-0.2.0.dist-info/METADATA", metadata)
    else:
        with tarfile.open(path, "w:gz") as sdist:
            member = tarfile.TarInfo("rescheduler-0.2.0/PKG-INFO")
            member.size = len(metadata)
            sdist.addfile(member, io.BytesIO(metadata.encode()))
    return path


@pytest.mark.parametrize("kind", [".whl", ".tar.gz"])
def test_metadata_that_an_index_takes_has_no_problem(tmp_path: Path, kind: str) -> None:
    assert artifacts.metadata_problems(package(tmp_path, kind, METADATA), "0.2.0") == []


@pytest.mark.parametrize("kind", [".whl", ".tar.gz"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Version: 0.2.0", "Version: 0.1.0"),
        ("Version: 0.2.0", "Version: latest"),
        ("Apache-2.0", "Apache"),
        (">=3.11", "3.11 or newer"),
        ("text/markdown", "text/x-rst"),
        ("Name: rescheduler\n", ""),
        ("# Rescheduler\n", ""),
    ],
)
def test_each_fault_of_the_metadata_is_a_problem(tmp_path: Path, kind: str, old: str, new: str) -> None:
    faults = artifacts.metadata_problems(package(tmp_path, kind, METADATA.replace(old, new)), "0.2.0")
    assert len(faults) == 1
    assert faults[0].startswith(f"rescheduler-0.2.0{kind}: ")


def test_the_copy_has_tracked_files_only(tmp_path: Path) -> None:
    root, copy = tmp_path / "root", tmp_path / "copy"
    (root / "operator").mkdir(parents=True)
    for name in ("operator/tracked file.py", "untracked.py", "gone.py"):
        (root / name).touch()
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    subprocess.run(["git", "add", "operator", "gone.py"], cwd=root, check=True)
    (root / "gone.py").unlink()
    artifacts.copy_tracked(root, copy)
    assert [str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()] == ["operator/tracked file.py"]


def test_files_of_other_targets_are_included_with_new_checksums(tmp_path: Path) -> None:
    dist, out = tmp_path / "dist", tmp_path / "out"
    for folder in (dist / "folder", out):
        folder.mkdir(parents=True)
    for name in ("install.yaml", artifacts.CHECKSUMS):
        (dist / name).write_text("old")
    artifacts.include(dist, out)
    artifacts.write_checksums(out)
    assert {path.name for path in out.iterdir()} == {"install.yaml", artifacts.CHECKSUMS}
    assert (out / artifacts.CHECKSUMS).read_text().endswith("  install.yaml\n")


def test_sha256sum_accepts_the_checksums_until_a_file_changes(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_text("a")
    artifacts.write_checksums(tmp_path)
    artifacts.write_checksums(tmp_path)
    check = ["sha256sum", "--check", "--strict", artifacts.CHECKSUMS]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "a.tgz: OK\n"
    (tmp_path / "a.tgz").write_text("b")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 1
