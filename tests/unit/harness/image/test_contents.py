"""What each package of an image weighs, and the page that says it."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

from harness.image import contents, packages
from harness.image.__main__ import PAGE


def tar(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def test_a_package_weighs_its_files_and_their_bytecode(tmp_path: Path) -> None:
    base = tar({"./usr/lib/python3.13/os.py": b"1234"})
    record = b"p.py,,\np/__init__.py,,\np-1.dist-info/RECORD,,\n"
    added = {
        "opt/rescheduler/p.py": b"12",
        "opt/rescheduler/__pycache__/p.cpython-313.pyc": b"123",
        "opt/rescheduler/p/__init__.py": b"",
        "opt/rescheduler/p-1.dist-info/RECORD": record,
        "usr/lib/python3.13/__pycache__/os.cpython-313.pyc": b"12345678",
    }
    manifest = json.dumps([{"Layers": ["base.tar", "added.tar"]}]).encode()
    archive = tmp_path / "image.tar"
    archive.write_bytes(tar({"manifest.json": manifest, "base.tar": base, "added.tar": tar(added)}))
    found = contents.weights(*contents.files(archive))
    assert found == Counter({"p": 5 + len(record), contents.LIBRARY: 8, contents.BASE: 4})


def test_the_table_has_the_heaviest_package_first_and_the_sums() -> None:
    text = contents.weights_table(Counter({"small": 10, "large": 2_000_000, contents.BASE: 5_000_000}))
    assert text.splitlines()[2:] == [
        "| `large` | 2.0 |",
        "| `small` | less than 0.1 |",
        "| **on top of Python** | 2.0 |",
        "| the base: Python and its libraries | 5.0 |",
        "| **the image** | 7.0 |",
    ]


def test_the_table_replaces_what_stands_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- generated weights: begin -->\n| `old` | 1 |\n<!-- generated weights: end -->\nafter\n"
    )
    contents.write_table(page, "| `new` | 1 |")
    assert list(contents.in_table(page)) == ["new"]
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("\nafter\n")


def test_the_page_names_each_package_of_the_image_and_each_that_is_left_out() -> None:
    """A new package needs a new table: `make image image-table`."""
    weighed = {name.lower().replace("_", "-") for name in contents.in_table(PAGE)}
    left_out = PAGE.read_text().partition("Left out")[2].partition("because")[0]
    assert weighed
    assert {name for name in packages.required() if name not in weighed} == {
        name for name in packages.required() if f"`{name}`" in left_out
    }
