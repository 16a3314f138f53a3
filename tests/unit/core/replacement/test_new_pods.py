"""New pods that other clients remove while released pods wait for them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rescheduler.core.model.pods import Owner, Pod
from rescheduler.core.model.workloads import Deployment, ReplicaSet, Workload
from rescheduler.core.replacement.new_pods import (
    ATTEMPTS_BEFORE_LONGEST_PAUSE,
    NewPods,
    observe,
    pause_after_removals,
)
from unit.builders import NOW, pod, release_record

DEPLOYMENT = Deployment("s", "web", "web", replicas=3, revision="1")
CURRENT = ReplicaSet("s", "web-a", "web-a", "web", replicas=3, revision="1")
OWNER = Owner("ReplicaSet", "web-a", "web-a")
RELEASED = pod("old", owner=OWNER, released=True, release_record=release_record(released_at=NOW))
OTHERS = (pod("p2", owner=OWNER), pod("p3", owner=OWNER))


def new(name: str, **fields: Any) -> Pod:
    """Return a pod that was created after the release."""
    return pod(name, ready=False, owner=OWNER, created=NOW + timedelta(seconds=1), **fields)


class Observed:
    """Observations of one owner, one after another.

    Attributes:
        latest: pods that the ReplicaSet no longer controls, by uid.
    """

    def __init__(self) -> None:
        self.state: NewPods | None = None
        self.latest: dict[str, Pod] = {}

    def see(self, *pods: Pod, rs: ReplicaSet = CURRENT, released: bool = True, evicting: tuple[str, ...] = ()) -> None:
        """Observe these new pods, with the other pods of the owner."""
        all_pods = (*((RELEASED,) if released else ()), *OTHERS, *pods)
        workload = Workload(DEPLOYMENT, (rs,), all_pods, frozenset(evicting))
        here = {each.uid: each for each in all_pods}
        self.state = observe(self.state, workload, lambda gone: self.latest.get(gone.uid, here.get(gone.uid)))

    @property
    def removed(self) -> tuple[str, ...]:
        assert self.state is not None
        return self.state.removed


def test_third_removed_new_pod_lets_the_owner_back_off() -> None:
    owner = Observed()
    steps = []
    for number in range(4):
        owner.see(new(f"new{number}"))
        steps.append(owner.state is not None and owner.state.must_back_off)
    assert steps == [False, False, False, True]
    assert owner.removed == ("new0", "new1", "new2")


def test_terminating_pod_counts_once_another_is_created() -> None:
    owner = Observed()
    owner.see(new("new0"))
    leaving = replace(new("new0"), deletion_timestamp=NOW)
    counts = []
    for pods in ((leaving,), (leaving, new("new1")), (new("new1"),)):
        owner.see(*pods)
        counts.append(len(owner.removed))
    assert counts == [0, 1, 1]


@pytest.mark.parametrize(
    ("latest", "text"),
    [
        (None, "new0"),
        (
            new("new0", deletion_timestamp=NOW, disruption="PreemptionByScheduler: default-scheduler: preempting"),
            "new0 (PreemptionByScheduler: default-scheduler: preempting)",
        ),
        (
            replace(new("new0"), owner=Owner("DaemonSet", "agent", "agent")),
            "new0 (DaemonSet agent is its controller now)",
        ),
        (replace(new("new0"), owner=None), "new0"),
    ],
)
def test_remover_is_named_if_it_is_known(latest: Pod | None, text: str) -> None:
    owner = Observed()
    owner.see(new("new0"))
    owner.latest = {"new0": latest} if latest else {}
    owner.see(new("new1"))
    assert owner.removed == (text,)


def test_pod_that_nobody_else_removes_does_not_count() -> None:
    ended, evicted = new("new0", phase="Failed"), new("new0", deletion_timestamp=NOW, evicted=True)
    evictions: tuple[str, ...]
    for last, evictions in ((new("new0"), ("new0",)), (ended, ()), (evicted, ())):
        owner = Observed()
        owner.see(new("new0"))
        owner.see(last, new("new1"), evicting=evictions)
        assert owner.removed == ()


def test_pods_that_the_replica_set_deletes_itself_do_not_count() -> None:
    owner = Observed()
    owner.see(new("new0"), new("new1"))
    owner.see(new("new0"), rs=replace(CURRENT, replicas=2))  # scaled down
    owner.see(new("new0"), new("new2"), rs=replace(CURRENT, replicas=3))
    returned = replace(RELEASED, uid="back", name="back", released=False)
    owner.see(new("new2"), new("new3"), returned)  # one too many after a return
    owner.see(new("new4"), returned)
    assert owner.removed == ()


def test_pods_of_a_scaled_down_replica_set_do_not_count_if_they_are_seen_first() -> None:
    owner = Observed()
    owner.see(new("new0"), new("new1"))
    owner.see(new("new0"))
    owner.see(new("new0"), rs=replace(CURRENT, replicas=2))
    owner.see(new("new0"), new("new2"), rs=replace(CURRENT, replicas=2))
    assert owner.removed == ()


def test_older_pods_of_the_owner_do_not_count() -> None:
    owner = Observed()
    old = replace(new("old1"), created=NOW - timedelta(seconds=1))
    owner.see(old)
    owner.see(new("new1"))
    assert owner.removed == ()


def test_nothing_is_observed_without_a_released_pod() -> None:
    owner = Observed()
    owner.see(new("new0"))
    owner.see(new("new1"), released=False)
    assert owner.state is None


def test_pause_doubles_from_a_second_to_five_minutes() -> None:
    pauses = [pause_after_removals(attempts).total_seconds() for attempts in (1, 2, 3, 9, 10, 10_000)]
    assert pauses == [1, 2, 4, 256, 300, 300]
    assert ATTEMPTS_BEFORE_LONGEST_PAUSE == 10
