"""Contents of an image: its files in SPDX, and what each package weighs."""

import csv
import io
import json
import os
import re
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness import binaries
from harness.reference import BEGIN, END, table

PACKAGES = "opt/rescheduler/"
LIBRARY = "bytecode of the standard library"
BASE = "the base: Python and its libraries"
_BYTECODE = re.compile(r"__pycache__/(.+)\.[\w-]+\.pyc$")


def write_spdx(archive: Path, image: str, document: Path) -> None:
    """Write the contents of an archived image as SPDX, with syft. Raises MissingBinariesError if syft is missing."""
    binaries.ensure(["syft"])
    command = [
        str(binaries.path("syft")),
        "scan",
        "--quiet",
        f"--source-name={image}",
        f"--output=spdx-json={document}",
    ]
    environment = {**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"}
    subprocess.run([*command, f"docker-archive:{archive}"], env=environment, check=True)


def files(archive: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Return path to bytes of each file of an archived image, and package to its list of contents.

    Paths have no leading slash.
    """
    sizes: dict[str, int] = {}
    records: dict[str, str] = {}
    with tarfile.open(archive) as image:
        for layer in _json(image, "manifest.json")[0]["Layers"]:
            with tarfile.open(fileobj=image.extractfile(layer)) as tar:
                for member in tar:
                    path = member.name.removeprefix("./").lstrip("/")
                    if member.isfile():
                        sizes[path] = member.size
                    if (
                        path.startswith(PACKAGES)
                        and path.endswith(".dist-info/RECORD")
                        and (file := tar.extractfile(member))
                    ):
                        records[path.split("/")[-2].split("-")[0]] = file.read().decode()
    return sizes, records


def _json(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    return json.load(file) if file else None


def weights(sizes: Mapping[str, int], records: Mapping[str, str]) -> Counter[str]:
    """Return the bytes of each package, with its bytecode; all other files are those of the base."""
    owners = {PACKAGES + row[0]: name for name, text in records.items() for row in csv.reader(io.StringIO(text)) if row}
    found: Counter[str] = Counter()
    for path, size in sizes.items():
        source = _BYTECODE.sub(r"\1.py", path)
        if path.startswith(PACKAGES):
            found[owners[source]] += size
        elif path != source:
            found[LIBRARY] += size
        else:
            found[BASE] += size
    return found


def weights_table(found: Counter[str]) -> str:
    """Return the weights as a table, the heaviest package first, with sums."""
    added = Counter({name: size for name, size in found.items() if name != BASE})
    rows = [(name if name == LIBRARY else f"`{name}`", size) for name, size in added.most_common()]
    rows += [("**on top of Python**", added.total()), (BASE, found[BASE]), ("**the image**", found.total())]
    return table(("package", "MB"), (f"| {name} | {_megabytes(size)} |" for name, size in rows))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}" if size >= 1e5 else "less than 0.1"


def write_table(page: Path, text: str) -> None:
    """Write the table into the page, between its markers."""
    before, _, rest = page.read_text().partition(BEGIN.format("weights"))
    _, _, after = rest.partition(END.format("weights"))
    page.write_text(f"{before}{BEGIN.format('weights')}\n{text}\n{END.format('weights')}{after}")


def in_table(page: Path) -> Iterable[str]:
    """Return the packages that the table of the page has."""
    text = page.read_text().partition(BEGIN.format("weights"))[2].partition(END.format("weights"))[0]
    return re.findall(r"^\| `(\S+)`", text, re.MULTILINE)
