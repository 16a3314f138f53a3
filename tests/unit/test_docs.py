"""The pages of the repository: their links, their commands, and what each of them must name."""

import pytest

import documented_commands
from harness import documents, site
from rescheduler.api.drains import BlockerClass
from rescheduler.core.model.wait_reasons import ProgressingReason

ROOT = documents.ROOT
FILES = site.tracked()
PAGES = {page: documents.read(page) for page in FILES if page.endswith(".md")}


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_to_a_file_and_a_heading(page: str) -> None:
    broken = [link for link in PAGES[page].links if "://" not in link and not _resolves(page, link)]
    assert broken == []


def test_each_command_is_run_by_a_test_or_marked_as_not_run() -> None:
    """A new command that is not of kubectl needs a row in tests/documented_commands.py."""
    found = {
        command: page for page, document in PAGES.items() for b in document.blocks for command in documents.commands(b)
    }
    assert {command: page for command, page in found.items() if documented_commands.mark(command) is None} == {}


def test_each_row_of_a_command_names_a_test_or_a_reason() -> None:
    rows = [where for _, where in documented_commands.MARKED]
    assert [w for w in rows if not w.startswith("not run: ") and not (ROOT / w).is_file()] == []


def test_each_block_without_a_language_is_of_a_known_kind() -> None:
    """Otherwise a command of an unknown program would pass unseen. Name the language of other blocks, such as text."""
    known = (*documented_commands.DIAGRAMS, *documented_commands.OUTPUT)
    blocks = [b for document in PAGES.values() for b in document.blocks if not b.language]
    unknown = [
        f"{b.page}:{b.line}"
        for b in blocks
        if not documents.commands(b) and not documents.objects(b) and not b.text.startswith(known)
    ]
    assert unknown == []


def test_no_block_is_inside_a_list() -> None:
    """The site would show such a block as text."""
    assert [
        f"{b.page}:{b.line}" for d in PAGES.values() for b in d.blocks if not b.language and b.text.startswith(" ")
    ] == []


def test_commands_are_read_from_scripts_and_sessions() -> None:
    def read(*lines: str, language: str = "") -> list[str]:
        return documents.commands(documents.Block("page", 1, language, lines))

    assert read("$ kubectl get nd", "NAME   NODE", "$ kubectl get rsp") == ["kubectl get nd", "kubectl get rsp"]
    assert read("kubectl get nd \\", "  -o wide", "kubectl get -o jsonpath='{", "}'") == [
        "kubectl get nd \\\n  -o wide",
        "kubectl get -o jsonpath='{\n}'",
    ]
    assert read("talosctl reboot", language="sh") == ["talosctl reboot"]
    assert read("NODE   PHASE") == []
    assert read("kubectl get nd -o json", "", "{", '  "items": []', "}") == ["kubectl get nd -o json"]
    assert documented_commands.mark("talosctl reboot") is None


@pytest.mark.parametrize("page", ["docs/troubleshooting.md", "docs/reference/blockers.md"])
def test_each_class_of_a_blocker_has_a_row(page: str) -> None:
    assert {each for each in BlockerClass if not _has_row(page, each)} == set()


@pytest.mark.parametrize("page", ["docs/troubleshooting.md", "docs/reference/conditions.md"])
def test_each_reason_to_wait_has_a_row(page: str) -> None:
    assert {each for each in ProgressingReason if not _has_row(page, each)} == set()


def _has_row(page: str, word: str) -> bool:
    return any(line.startswith((f"| `{word}` |", f"| [`{word}`](")) for line in PAGES[page].prose)


def _resolves(page: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
    if not target.is_relative_to(ROOT) or not target.exists():
        return False
    return not anchor or anchor in PAGES[str(target.relative_to(ROOT))].anchors
