"""The generated tables of the reference."""

from pathlib import Path

import pytest

from harness import reference


@pytest.mark.parametrize("page", reference.SECTIONS, ids=lambda page: page.name)
def test_the_page_is_as_generated(page: Path) -> None:
    assert page.read_text() == reference.current(page)


def test_a_missing_marker_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("no markers")
    monkeypatch.setitem(reference.SECTIONS, page, {"drain": lambda: ""})
    with pytest.raises(ValueError, match="markers"):
        reference.current(page)
