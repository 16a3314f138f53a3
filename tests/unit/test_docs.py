"""The pages of the repository: their links, their commands, and what each of them must name."""

import pytest

from harness import documents, site

ROOT = documents.ROOT
FILES = site.tracked()
PAGES = {page: documents.read(page) for page in FILES if page.endswith(".md")}


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_to_a_file_and_a_heading(page: str) -> None:
    broken = [link for link in PAGES[page].links if "://" not in link and not _resolves(page, link)]
    assert broken == []


def _resolves(page: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
    if not target.is_relative_to(ROOT) or not target.exists():
        return False
    return not anchor or anchor in PAGES[str(target.relative_to(ROOT))].anchors
