"""Remove from a folder of installed packages what the operator never uses; the image has the rest.

    python3 tests/harness/image/slim.py FOLDER

Each package from which the operator imports something stays whole, so that imports that happen later work too. Only the
generated modules of the Kubernetes client and the modules of Rescheduler itself are judged one by one: nothing looks
them up by name at run time.
"""

import csv
import importlib
import shutil
import sys
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from importlib import metadata
from pathlib import Path

ENTRY_POINTS = (
    "rescheduler.cli.operator",
    "rescheduler.app",
    "rescheduler.cli.verify.verification",
    "rescheduler.cli.storage.stored_versions",
)
"""Modules of the commands `run`, `cleanup`, `verify` and `migrate-storage`. Importing them imports all that the commands need."""
PLUGIN_ONLY = ("rich", "socks")
"""structlog and urllib3 import these if they are there: 5 MB of memory that only the plugin needs."""
READ_AT_RUN_TIME = ("tzdata", "rescheduler/__main__.py", "rescheduler/py.typed")
"""Read as data, or run as a program: no import shows them."""
ONE_BY_ONE = (
    "rescheduler/",
    *(f"kubernetes/{client}/{kind}/" for client in ("client", "aio/client") for kind in ("api", "models")),
)
SOURCES = frozenset({".c", ".h", ".hash", ".pxd", ".pxi", ".pyi", ".pyx"})
"""Files that only compilers and type checkers read."""


def main() -> None:
    """Slim the folder of the command line."""
    folder = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(folder))
    slim(folder, imported(folder))


def imported(folder: Path) -> set[str]:
    """Import what the commands of the operator import; return the files of the folder that this loaded."""
    for name in PLUGIN_ONLY:
        sys.modules[name] = None  # type: ignore[assignment]  # an import now raises ImportError
    for name in ENTRY_POINTS:
        importlib.import_module(name)
    loaded = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    files = (Path(file).resolve() for file in loaded if file)
    return {file.relative_to(folder).as_posix() for file in files if file.is_relative_to(folder)}


def slim(folder: Path, loaded: AbstractSet[str]) -> None:
    """Remove what is not needed, if the operator loads these files. The lists of contents of packages stay true."""
    for distribution in list(metadata.distributions(path=[str(folder)])):
        files = {str(file) for file in distribution.files or () if ".." not in file.parts}
        left = needed(files, loaded)
        for file in files - left:
            (folder / file).unlink(missing_ok=True)
        if left:
            _write_record(folder, left)
    shutil.rmtree(folder / "bin", ignore_errors=True)  # programs of packages: their lists of contents name other paths
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def needed(files: Iterable[str], loaded: AbstractSet[str]) -> set[str]:
    """Return which files of one package the operator needs: none, if it loads none of them."""
    files = set(files)
    if not any(file in loaded or file.startswith(READ_AT_RUN_TIME) for file in files):
        return set()
    return {file for file in files if _needed(file, loaded)}


def _needed(file: str, loaded: AbstractSet[str]) -> bool:
    path = Path(file)
    if file in loaded or file.startswith(READ_AT_RUN_TIME):
        return True
    return not (file.startswith(ONE_BY_ONE) or path.suffix in SOURCES or "tests" in path.parts)


def _write_record(folder: Path, left: AbstractSet[str]) -> None:
    """Write the list of contents of a package again, without the files that are gone."""
    record = folder / next(file for file in left if file.endswith(".dist-info/RECORD"))
    rows = [row for row in csv.reader(record.read_text().splitlines()) if row[0] in left]
    record.unlink()  # it may be a hard link to the file of another folder
    with record.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
