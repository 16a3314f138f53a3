"""The Python packages of the image, made from the packages of this Python: no engine and no network is needed."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from harness.image import slim

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "operator" / "rescheduler"


def required() -> list[str]:
    """Return the names of the packages that the image installs before it is slimmed."""
    return re.findall(r"^([\w.-]+)==", (ROOT / "requirements/runtime.txt").read_text(), re.MULTILINE)


def make(folder: Path) -> Path:
    """Make the packages of the image in a new folder, and return it."""
    folder.mkdir()
    for name in required():
        with suppress(metadata.PackageNotFoundError):  # not for this version of Python
            _copy(metadata.distribution(name), folder)
    shutil.copytree(SOURCES, folder / "rescheduler", ignore=shutil.ignore_patterns("__pycache__"))
    _describe(folder)
    command = [sys.executable, "-S", str(Path(slim.__file__)), str(folder)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    return folder


def _copy(distribution: metadata.Distribution, folder: Path) -> None:
    for file in distribution.files or ():
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        source, target = str(distribution.locate_file(file)), folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy2(source, target)


def _describe(folder: Path) -> None:
    """Write the metadata of Rescheduler: the editable installation of the tests lists no modules."""
    version = metadata.version("rescheduler")
    described = folder / f"rescheduler-{version}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.4\nName: rescheduler\nVersion: {version}\n")
    files = (
        path.relative_to(folder).as_posix() for path in sorted((folder / "rescheduler").rglob("*")) if path.is_file()
    )
    (described / "RECORD").write_text(
        "".join(f"{file},,\n" for file in (*files, f"{described.name}/RECORD", f"{described.name}/METADATA"))
    )
