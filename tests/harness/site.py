"""Lay out the pages of the site: `python -m harness.site FOLDER`, a part of `make docs`.

The pages keep their places in the tree, so that each relative link works on the site as in the repository. The
navigation follows the folders: a new page needs no entry.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "docs" / "site.toml"
STYLE = "docs/site.css"
HOME = "README.md"
PROJECT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "SUPPORT.md", "GOVERNANCE.md", "ROADMAP.md")
SECTIONS: dict[str, tuple[str, ...]] = {
    "Start": (HOME, "docs/getting-started.md", "docs/concepts.md", "docs/comparison.md", "docs/glossary.md"),
    "Guides": ("docs/guides/maintenance.md", "docs/guides/kernel-upgrades.md", "docs/guides/failed-nodes.md"),
    "Troubleshooting": ("docs/troubleshooting.md",),
    "Reference": ("docs/reference/support-matrix.md", "docs/reference/policy.md", "docs/reference/nodedrain.md"),
    "Explanation": ("docs/explanation/failure-modes.md", "docs/security.md", "bench/results.md", "bench/real.md"),
    "Project": PROJECT,
}
"""The first pages of each tab. The other pages of its folder follow by their titles."""
FOLDERS = {"Guides": "docs/guides/", "Troubleshooting": "docs/runbooks/", "Reference": "docs/reference/"}
FOLDERS |= {"Explanation": "docs/explanation/", "Start": "docs/"}
_TO_HOME = re.compile(rf"\]\(((?:\.\./)*){re.escape(HOME)}(?=[#)])")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def tracked() -> list[str]:
    """Return the files of the repository, with new files that are not ignored."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted(path for path in found if (ROOT / path).is_file())


def pages(files: list[str]) -> list[str]:
    """Return the pages of the site."""
    return [f for f in files if f.endswith(".md") and (f.startswith(("docs/", "bench/")) or f in (HOME, *PROJECT))]


def linked_files(page: str) -> set[str]:
    """Return the files of the repository that a page links to or shows."""
    folder = (ROOT / page).parent
    found = {(folder / target).resolve() for target in _LINK.findall((ROOT / page).read_text()) if ":" not in target}
    return {str(file.relative_to(ROOT)) for file in found if file.is_file()}


def with_home(text: str) -> str:
    """Return a page whose links to the README lead to the first page of the site."""
    return _TO_HOME.sub(r"](\1index.md", text)


def title(page: str) -> str:
    """Return the first heading of a page."""
    found = re.search(r"^# (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    return found[1].replace("`", "") if found else page


def navigation(found: list[str], titled: Callable[[str], str] = title) -> list[dict[str, Any]]:
    """Return the tabs of the site with their pages. A page is in one tab."""
    sections: dict[str, list[str]] = {name: [p for p in first if p in found] for name, first in SECTIONS.items()}
    placed = {page for listed in sections.values() for page in listed}
    for page in sorted(set(found) - placed, key=lambda page: titled(page).lower()):
        name = next((name for name, folder in FOLDERS.items() if page.startswith(folder)), "Project")
        sections[name].append(page)
    return [
        {name: [{titled(page): "index.md" if page == HOME else page} for page in listed]}
        for name, listed in sections.items()
        if listed
    ]


def toml(value: Any) -> str:
    """Return a nested list of tables as one TOML value."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def main(folder: Path) -> None:
    """Copy the pages and all files that they link to, and write the settings."""
    found = pages(tracked())
    shutil.rmtree(folder, ignore_errors=True)
    for file in sorted({STYLE, *found, *(file for page in found for file in linked_files(page))}):
        target = folder / "pages" / ("index.md" if file == HOME else file)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".md"):
            target.write_text(with_home((ROOT / file).read_text()))
        else:
            shutil.copyfile(ROOT / file, target)
    settings = SETTINGS.read_text().replace("[project]\n", f"[project]\nnav = {toml(navigation(found))}\n", 1)
    (folder / "zensical.toml").write_text(settings)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
