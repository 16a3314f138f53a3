"""The layout of the site."""

import tomllib
from pathlib import Path

from harness import site


def test_each_page_is_in_the_navigation_once() -> None:
    found = site.pages(site.tracked())
    listed = [
        page for tab in site.navigation(found) for entries in tab.values() for e in entries for page in e.values()
    ]
    assert sorted(listed) == sorted("index.md" if page == site.HOME else page for page in found)


def test_a_new_page_of_a_folder_is_in_the_tab_of_the_folder() -> None:
    tabs = {
        name: entries
        for tab in site.navigation(["docs/runbooks/x.md", "docs/new.md"], _named)
        for name, entries in tab.items()
    }
    assert tabs == {"Troubleshooting": [{"x": "docs/runbooks/x.md"}], "Start": [{"new": "docs/new.md"}]}


def _named(page: str) -> str:
    return Path(page).stem


def test_the_settings_are_toml_and_the_files_that_pages_show_are_copied(tmp_path: Path) -> None:
    site.main(tmp_path)
    settings = tomllib.loads((tmp_path / "zensical.toml").read_text())
    assert "Guides" in {name for tab in settings["project"]["nav"] for name in tab}
    assert settings["project"]["theme"]["font"] is False
    assert (tmp_path / "pages" / "index.md").is_file()
    assert (tmp_path / "pages" / "bench" / "real.svg").is_file()


def test_links_to_the_readme_lead_to_the_first_page() -> None:
    text = "[a](README.md#safety), [b](../../README.md), [c](other/README.md), `README.md`"
    assert site.with_home(text) == "[a](index.md#safety), [b](../../index.md), [c](other/README.md), `README.md`"
