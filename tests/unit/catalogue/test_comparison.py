"""The comparison of Rescheduler with `kubectl drain`."""

from typing import Any

import pytest

from catalogue.comparison import SLACK, Result, Verdict
from catalogue.entries import Column, Entry, Way
from catalogue.report import page

GOOD = Result(finished=True, seconds=5.0, least={"web": 1}, start={"web": 2}, moved=("web",))


def entry(**more: Any) -> Entry:
    return Entry.model_validate({"name": "x", "title": "A cluster", "about": "An entry.", **more})


def verdict(theirs: Result, ours: Result, **more: Any) -> Verdict:
    return Verdict(entry(**more), {Way.KUBECTL: theirs, Way.DEFAULT: ours, Way.NEVER: GOOD})


def but(**changed: Any) -> Result:
    return Result(**{**{name: getattr(GOOD, name) for name in Result.__dataclass_fields__}, **changed})


def test_an_equal_result_holds() -> None:
    assert not verdict(GOOD, GOOD).failures
    assert not verdict(GOOD, but(seconds=5.0 + SLACK)).failures


@pytest.mark.parametrize(
    ("ours", "column"),
    [
        (but(seconds=5.1 + SLACK), Column.SECONDS),
        (but(least={"web": 0}), Column.READY),
        (but(past_budget=1), Column.PAST_BUDGET),
        (but(twice=1), Column.TWICE),
        (but(finished=False, left=("web",), classes={"web": ("Unmanaged",)}), Column.FINISHED),
        (but(finished=False, left=("web",), unexplained=("web",)), Column.REPORTED),
        (but(trouble="no such kind"), Column.OUTCOME),
    ],
)
def test_a_worse_column_fails(ours: Result, column: Column) -> None:
    failures = verdict(GOOD, ours).failures
    assert column in {found.column for found in failures}
    assert {found.way for found in failures} == {Way.DEFAULT}


def test_ready_pods_are_compared_only_if_kubectl_moved_their_owner() -> None:
    held = but(finished=False, moved=(), least={"web": 2})
    assert not verdict(held, GOOD).failures


def test_a_drain_that_kubectl_does_not_finish_may_last_longer_or_be_explained() -> None:
    never = but(finished=False, moved=())
    explained = but(finished=False, left=("web",), classes={"web": ("BudgetExhausted",)})
    assert not verdict(never, but(seconds=300.0)).failures
    assert not verdict(never, explained, outcome={"finished": False}).failures


def test_the_outcome_of_the_entry_must_hold_too() -> None:
    outcome = {"finished": False, "least": {"web": 2}, "reports": {"web": "Unmanaged"}}
    texts = [found.text for found in verdict(GOOD, GOOD, outcome=outcome).failures]
    assert texts == [
        "finished, unlike the entry's outcome",
        "web has 1 Ready, and the entry requires 2",
        "web has no blocker, and the entry requires Unmanaged",
    ]


def test_an_exception_excuses_its_column_only() -> None:
    ours = but(finished=False, left=("web",), classes={"web": ("NoRoomInPool",)}, past_budget=1)
    found = verdict(GOOD, ours, intended={"finished": "Hold."}, outcome={"finished": False})
    assert [each.column for each in found.failures] == [Column.PAST_BUDGET]
    assert [each.column for each in found.intended] == [Column.FINISHED]


@pytest.mark.parametrize(("known", "fails"), [("", True), ("Why.", False)])
def test_only_a_known_failure_is_no_surprise_and_only_if_it_fails(known: str, fails: bool) -> None:
    assert verdict(GOOD, but(past_budget=1), known=known).surprising is fails
    assert verdict(GOOD, GOOD, known=known).surprising is not fails


def test_the_page_lists_each_entry_with_its_ways_and_findings() -> None:
    found = verdict(GOOD, but(twice=1), known="Why it fails.")
    results = {Way.KUBECTL: GOOD, Way.DEFAULT: but(twice=1), Way.NEVER: GOOD}
    text = page([(entry(known="Why it fails."), results, found)])
    assert "0 of 1 entries hold." in text
    assert "| [A cluster](#a-cluster) | 5.0 s | 5.0 s | 5.0 s | **fails** |" in text
    assert "| Rescheduler | yes | 5.0 | web 1/2 | 0 | 1 | none |" in text
    assert "- **Fails**: Rescheduler: pods that ran twice: 1." in text
    assert "- Known: Why it fails." in text


def test_another_tool_is_measured_and_not_judged() -> None:
    results = {Way.KUBECTL: GOOD, Way.DEFAULT: GOOD, Way.NEVER: GOOD, Way.PEER: but(least={"web": 0}, past_budget=9)}
    found = Verdict(entry(), results)
    assert not found.failures
    assert "| the other tool | yes | 5.0 | web 0/2 | 9 |" in page([(entry(), results, found)])
