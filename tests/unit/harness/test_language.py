"""The check of plain English finds what it must find, and nothing in code."""

import pytest

from harness import language


@pytest.mark.parametrize(
    "sentence",
    [
        "The drain begins anew.",
        "None where it is absent.",
        "The node is told.",
        "Whoever holds it waits.",
        "It is tried\non again.",
    ],
)
def test_a_private_phrase_is_found_in_docs_and_in_code(sentence: str) -> None:
    assert [finding.line for finding in language.prose("docs/a.md", f"# Title\n\n{sentence}\n")] == [3]
    assert list(language.python("operator/a.py", f'"""Module.\n\n{sentence}\n"""\n'))


def test_a_docstring_begins_with_the_subject() -> None:
    source = 'def f() -> None:\n    """What is wanted."""\n'
    assert [finding.line for finding in language.python("operator/a.py", source)] == [2]


def test_comments_and_strings_are_read() -> None:
    assert len(list(language.python("operator/a.py", 'X = "tell it anew"  # and anew\n'))) == 2


@pytest.mark.parametrize("text", ["Use `anew` here.", "```\nanew\n```", "    kubectl get anew"])
def test_code_is_left_out(text: str) -> None:
    assert not list(language.prose("docs/a.md", text))
