"""Measures over the revisions of pods."""

from typing import Any

from catalogue.entries import OWNER
from catalogue.measures import Tally

BUDGET = {"spec": {"selector": {"matchLabels": {"app": "web"}}}, "status": {"desiredHealthy": 2}}


def pod(uid: str, *, owner: str = "web", ready: bool = True, going: bool = False) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": uid, "uid": uid, "labels": {"app": owner, OWNER: owner}}
    meta |= {"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {}
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"metadata": meta, "spec": {}, "status": {"phase": "Running", "conditions": conditions}}


def begin(*pods: dict[str, Any], **once: int) -> Tally:
    return Tally.begin(pods, [BUDGET], once)


def test_the_lowest_number_of_ready_pods_stays() -> None:
    tally = begin(pod("a"), pod("b"), pod("x", owner="other"))
    tally.see(pod("a", going=True))
    tally.see(pod("b", ready=False))
    tally.see(pod("a", going=True), gone=True)
    tally.see(pod("b"))
    tally.see(pod("c"))
    assert tally.least == {"web": 0, "other": 1}
    assert tally.start == {"web": 2, "other": 1}


def test_a_ready_pod_that_its_budget_requires_counts_once_when_it_is_deleted() -> None:
    tally = begin(pod("a"), pod("b"), pod("c"))
    tally.see(pod("a", going=True))
    assert tally.past_budget == 0
    tally.see(pod("b", going=True))
    tally.see(pod("b", going=True))
    tally.see(pod("b", going=True), gone=True)
    assert tally.past_budget == 1
    tally.see(pod("c"), gone=True)
    assert tally.past_budget == 2


def test_a_pod_without_a_budget_and_a_pod_that_is_not_ready_are_past_none() -> None:
    tally = begin(pod("a"), pod("b"), pod("x", owner="other"))
    tally.see(pod("x", owner="other", going=True))
    tally.see(pod("b", ready=False))
    tally.see(pod("b", ready=False, going=True))
    assert tally.past_budget == 0


def test_a_pod_runs_twice_only_if_neither_is_terminating_and_its_owner_is_named() -> None:
    tally = begin(pod("a"), web=1)
    tally.see(pod("b", ready=False))
    assert tally.twice == {"web": 1}
    other = begin(pod("a"), other=1)
    other.see(pod("b"))
    assert not any(other.twice.values())
    calm = begin(pod("a"), web=1)
    calm.see(pod("a", going=True))
    calm.see(pod("b"))
    assert calm.twice == {"web": 0}


def test_a_new_list_shows_what_the_watch_missed() -> None:
    tally = begin(pod("a"), pod("b"))
    tally.relist([pod("b"), pod("c")])
    assert tally.least == {"web": 1}
    assert tally.past_budget == 1
    assert set(tally.pods) == {"b", "c"}
