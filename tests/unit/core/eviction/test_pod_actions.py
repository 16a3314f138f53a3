"""What a drain does with each kind of pod."""

from datetime import UTC, datetime, timedelta

import pytest

from rescheduler.api import names
from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import Drain, EvictOrBlock, OnTimeout, Rule, RuleAction
from rescheduler.api.selectors import LabelSelector
from rescheduler.core.eviction.pod_actions import (
    CRITICAL_ORDER,
    OWN_ORDER,
    Circumstances,
    Fate,
    Premise,
    Verdict,
    judge,
    past_budget,
)
from rescheduler.core.model.pods import Owner, Pod, Toleration
from rescheduler.core.model.volumes import Claim, Volumes

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REPLICA_SET = Owner("ReplicaSet", "web", "o")


def some(**changes: object) -> Pod:
    base: dict[str, object] = {"namespace": "s", "name": "p", "uid": "u", "owner": REPLICA_SET, "ready": True}
    return Pod(**(base | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "drain", "fate", "cause"),
    [
        ({}, {}, Fate.EVICT, None),
        ({"mirror": True, "owner": None}, {}, Fate.STAY, None),
        ({"owner": Owner("DaemonSet", "d", "o")}, {}, Fate.STAY, None),
        ({"owner": Owner("DaemonSet", "d", "o"), "phase": "Failed"}, {}, Fate.EVICT, None),
        (
            {"owner": Owner("DaemonSet", "d", "o"), "empty_dir": True},
            {"empty_dir": EvictOrBlock.BLOCK},
            Fate.STAY,
            None,
        ),
        ({"owner": None}, {}, Fate.BLOCK, BlockerClass.UNMANAGED),
        ({"owner": None}, {"unmanaged": EvictOrBlock.EVICT}, Fate.EVICT, None),
        ({"owner": None, "phase": "Succeeded"}, {}, Fate.EVICT, None),
        ({}, {"rules": (Rule(action=RuleAction.WAIT_COMPLETED),)}, Fate.BLOCK, BlockerClass.WAIT_COMPLETED),
        ({"phase": "Succeeded"}, {"rules": (Rule(action=RuleAction.WAIT_COMPLETED),)}, Fate.EVICT, None),
        ({"empty_dir": True}, {}, Fate.EVICT, None),
        ({"empty_dir": True}, {"empty_dir": EvictOrBlock.BLOCK}, Fate.BLOCK, BlockerClass.EMPTY_DIR),
        ({"empty_dir": True, "phase": "Failed"}, {"empty_dir": EvictOrBlock.BLOCK}, Fate.EVICT, None),
        ({"tolerations": (Toleration("", "Exists", "", ""),)}, {}, Fate.STAY, None),
        ({"tolerations": (Toleration("node.kubernetes.io/unschedulable", "Exists", "", ""),)}, {}, Fate.STAY, None),
        ({"tolerations": (Toleration("other", "Exists", "", ""),)}, {}, Fate.EVICT, None),
        ({"tolerations": (Toleration("", "Exists", "", "NoExecute"),)}, {}, Fate.EVICT, None),
        ({"deleting": NOW}, {}, Fate.LEAVING, None),
        ({"deleting": NOW - timedelta(seconds=9)}, {}, Fate.LEAVING, None),
        ({"deleting": NOW - timedelta(seconds=11)}, {}, Fate.LEAVING, BlockerClass.STUCK_TERMINATING),
    ],
)
def test_fates(changes: dict[str, object], drain: dict[str, object], fate: Fate, cause: BlockerClass | None) -> None:
    verdict = judge(some(**changes), Drain(**drain), Circumstances(NOW))  # type: ignore[arg-type]
    assert (verdict.fate, verdict.cause) == (fate, cause)


RWO, RWX = Claim("s", "data", "v", exclusive=True), Claim("s", "data", "v")
LOST = {"ready": False}
KINDS = [
    # what may run twice goes without proof
    ({}, None, Fate.DELETE),
    ({"owner": Owner("ReplicationController", "rc", "o")}, None, Fate.DELETE),
    ({"owner": Owner("Job", "j", "eager")}, None, Fate.DELETE),
    ({"claims": ("data",)}, RWX, Fate.DELETE),
    ({"ephemeral": ("p-scratch",)}, Claim("s", "p-scratch", "v", exclusive=True), Fate.DELETE),
    ({"empty_dir": True, "host_path": True}, None, Fate.DELETE),
    ({"annotations": {"rescheduler.dev/do-not-disrupt": "true"}}, None, Fate.DELETE),
    # the rest waits
    ({"claims": ("data",)}, RWO, Fate.BLOCK),
    ({"claims": ("unknown",)}, RWX, Fate.BLOCK),
    ({"disk": True}, None, Fate.BLOCK),
    ({"owner": Owner("Job", "j", "patient")}, None, Fate.BLOCK),
    ({"owner": Owner("StatefulSet", "db", "o")}, None, Fate.BLOCK),
    ({"owner": Owner("StatefulSet", "db", "o"), "claims": ("data",)}, RWO, Fate.BLOCK),
    ({"owner": Owner("Foo.example.com", "x", "o")}, None, Fate.BLOCK),
    ({"owner": Owner("ReplicaSet.example.com", "x", "o")}, None, Fate.BLOCK),
    ({"owner": None}, None, Fate.BLOCK),
]


def unreachable(claim: Claim | None = None, **changes: object) -> Circumstances:
    volumes = Volumes({(claim.namespace, claim.name): claim} if claim else {})
    given: dict[str, object] = {"unreachable": True, "failing": True, "jobs": frozenset({"eager"}), "volumes": volumes}
    return Circumstances(NOW, **(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("changes", "claim", "fate"), KINDS)
def test_on_an_unreachable_node_only_what_may_run_twice_goes(
    changes: dict[str, object], claim: Claim | None, fate: Fate
) -> None:
    drain = Drain(unmanaged=EvictOrBlock.EVICT, empty_dir=EvictOrBlock.BLOCK)
    verdict = judge(some(**(LOST | changes)), drain, unreachable(claim, proof_hint="how"))
    assert verdict.fate is fate
    if fate is Fate.BLOCK:
        assert (verdict.cause, verdict.hint) == (BlockerClass.WAITING_FOR_PROOF, "how")
    else:
        assert (verdict.premise, verdict.as_seen, verdict.grace) == (Premise.SILENT, True, None)


@pytest.mark.parametrize(("changes", "claim", "fate"), KINDS)
def test_with_proof_all_of_them_go(changes: dict[str, object], claim: Claim | None, fate: Fate) -> None:
    drain = Drain(unmanaged=EvictOrBlock.EVICT)
    verdict = judge(some(**(LOST | changes)), drain, unreachable(claim, dead=True))
    assert verdict.fate is Fate.DELETE
    assert verdict.as_seen
    assert verdict.premise is (Premise.DEAD if fate is Fate.BLOCK else Premise.SILENT)


@pytest.mark.parametrize(("changes", "claim", "fate"), KINDS)
def test_one_that_still_counts_as_healthy_keeps_its_budget(
    changes: dict[str, object], claim: Claim | None, fate: Fate
) -> None:
    drain = Drain(unmanaged=EvictOrBlock.EVICT)
    assert judge(some(**changes), drain, unreachable(claim, dead=True)).fate is Fate.EVICT
    assert judge(some(**changes), drain, unreachable(claim)).fate is not Fate.DELETE


@pytest.mark.parametrize(("changes", "claim", "fate"), KINDS)
def test_a_terminating_pod_is_gone_unless_it_waits_for_proof(
    changes: dict[str, object], claim: Claim | None, fate: Fate
) -> None:
    pod = some(**(LOST | changes | {"deleting": NOW - timedelta(hours=1)}))
    waits = fate is Fate.BLOCK
    without = judge(pod, Drain(), unreachable(claim))
    assert without.fate is Fate.LEAVING
    assert (without.cause is BlockerClass.WAITING_FOR_PROOF) is waits
    proven = judge(pod, Drain(), unreachable(claim, dead=True))
    assert proven.fate is Fate.LEAVING
    assert (proven.premise is Premise.DEAD) is waits


@pytest.mark.parametrize(
    ("changes", "drain", "fate", "cause"),
    [
        ({"mirror": True, "owner": None}, {}, Fate.STAY, None),
        ({"owner": Owner("DaemonSet", "d", "o")}, {}, Fate.STAY, None),
        ({}, {"rules": (Rule(action=RuleAction.SKIP),)}, Fate.STAY, None),
        ({"owner": None}, {}, Fate.BLOCK, BlockerClass.UNMANAGED),
        ({"tolerations": (Toleration("", "Exists", "", ""),)}, {}, Fate.STAY, None),
        ({"claims": ("local",)}, {}, Fate.BLOCK, BlockerClass.LOCAL_VOLUME),
        ({}, {"rules": (Rule(action=RuleAction.WAIT_COMPLETED),)}, Fate.DELETE, None),
        ({"phase": "Succeeded"}, {}, Fate.EVICT, None),
    ],
)
@pytest.mark.parametrize("dead", [False, True])
def test_what_holds_on_an_unreachable_node_too(
    changes: dict[str, object], drain: dict[str, object], fate: Fate, cause: BlockerClass | None, dead: bool
) -> None:
    volumes = Volumes({("s", "local"): Claim("s", "local", "here")}, frozenset({"here"}))
    seen = unreachable(dead=dead, volumes=volumes)
    verdict = judge(some(**(LOST | changes)), Drain(**drain), seen)  # type: ignore[arg-type]
    assert (verdict.fate, verdict.cause) == (fate, cause)


@pytest.mark.parametrize(("changes", "claim", "fate"), KINDS)
def test_the_timeout_overrides_budgets_there_too_and_never_the_want_of_proof(
    changes: dict[str, object], claim: Claim | None, fate: Fate
) -> None:
    drain = Drain(timeout=timedelta(minutes=1), on_timeout=OnTimeout.DELETE, unmanaged=EvictOrBlock.EVICT)
    late = {"started": NOW - timedelta(minutes=2)}
    assert judge(some(**changes), drain, unreachable(claim, **late)).fate is fate
    verdict = judge(some(**changes), drain, unreachable(claim, dead=True, **late))
    assert (verdict.fate, verdict.grace) == (Fate.DELETE, 1)
    assert verdict.premise is (Premise.DEAD if fate is Fate.BLOCK else Premise.SILENT)


def test_while_a_failure_is_not_known_for_sure_nothing_is_deleted() -> None:
    seen = unreachable(failing=False)
    assert judge(some(ready=False), Drain(), seen).fate is Fate.EVICT
    stateful = some(ready=False, owner=Owner("StatefulSet", "db", "o"))
    assert judge(stateful, Drain(), seen).cause is BlockerClass.WAITING_FOR_PROOF


@pytest.mark.parametrize(
    ("changes", "seen", "past"),
    [
        ({"ready": False}, {}, True),
        ({"ready": False, "owner": Owner("Job", "j", "eager")}, {}, True),
        ({"ready": True}, {}, False),
        ({"ready": False, "owner": Owner("StatefulSet", "db", "o")}, {}, False),
        ({"ready": False, "disk": True}, {}, False),
        ({"ready": False}, {"failing": False}, False),
        ({"ready": False}, {"unreachable": True}, False),
    ],
)
def test_on_an_ill_node_that_lives_what_serves_nobody_goes_past_its_budget(
    changes: dict[str, object], seen: dict[str, object], past: bool
) -> None:
    given: dict[str, object] = {"failing": True, "jobs": frozenset({"eager"})}
    around = Circumstances(NOW, **(given | seen))  # type: ignore[arg-type]
    held = Verdict(Fate.EVICT, 3)
    expected = Verdict(Fate.DELETE, 3, as_seen=True) if past else held
    assert past_budget(some(**changes), held, around) == expected


def test_the_first_rule_that_selects_decides() -> None:
    skip = Rule(pod_selector=LabelSelector(match_labels={"a": "b"}), action=RuleAction.SKIP)
    later = Rule(order=5)
    drain = Drain(rules=(skip, later))
    assert judge(some(labels={"a": "b"}), drain, Circumstances(NOW)).fate is Fate.STAY
    assert judge(some(), drain, Circumstances(NOW)).order == 5


def test_critical_pods_leave_last() -> None:
    critical = some(priority_class="system-cluster-critical")
    assert judge(critical, Drain(), Circumstances(NOW)).order == CRITICAL_ORDER


def test_our_own_pod_leaves_after_all_others() -> None:
    drain = Drain(rules=(Rule(order=2_000_000_000),))
    assert judge(some(), drain, Circumstances(NOW, own="s/p")).order == OWN_ORDER > 2_000_000_000


@pytest.mark.parametrize(
    ("value", "started", "fate", "noted"),
    [
        ("true", NOW, Fate.BLOCK, False),
        ("4h", NOW - timedelta(hours=3), Fate.BLOCK, False),
        ("4h", NOW - timedelta(hours=5), Fate.EVICT, False),
        ("4h", None, Fate.BLOCK, False),
        ("false", NOW, Fate.EVICT, False),
        ("0s", NOW, Fate.EVICT, True),
        ("-4h", NOW, Fate.EVICT, True),
        ("yes please", NOW, Fate.EVICT, True),
    ],
)
def test_do_not_disrupt(value: str, started: datetime | None, fate: Fate, noted: bool) -> None:
    pod = some(annotations={"rescheduler.dev/do-not-disrupt": value}, started=started)
    verdict = judge(pod, Drain(), Circumstances(NOW))
    assert (verdict.fate, bool(verdict.note)) == (fate, noted)
    assert judge(pod, Drain(), Circumstances(NOW, unreachable=True)).fate is not Fate.BLOCK


@pytest.mark.parametrize(
    ("since", "grace", "fate", "given"),
    [
        (timedelta(minutes=9), 30, Fate.EVICT, None),
        (timedelta(minutes=9, seconds=30), 30, Fate.DELETE, 30),
        (timedelta(minutes=9, seconds=50), 30, Fate.DELETE, 10),
        (timedelta(minutes=20), 30, Fate.DELETE, 1),  # late: never 0
        (timedelta(minutes=5), 3600, Fate.DELETE, 300),  # cut to half the timeout
        (timedelta(minutes=4), 3600, Fate.EVICT, None),
        (timedelta(minutes=10), 0, Fate.DELETE, 1),
    ],
)
def test_at_the_timeout_less_its_grace_a_pod_is_deleted(
    since: timedelta, grace: int, fate: Fate, given: int | None
) -> None:
    drain = Drain(timeout=timedelta(minutes=10), on_timeout=OnTimeout.DELETE)
    verdict = judge(some(grace=grace), drain, Circumstances(NOW, started=NOW - since))
    assert (verdict.fate, verdict.grace) == (fate, given)


@pytest.mark.parametrize(
    ("changes", "drain", "fate"),
    [
        ({"annotations": {"rescheduler.dev/do-not-disrupt": "true"}}, {}, Fate.DELETE),
        ({}, {"rules": (Rule(action=RuleAction.WAIT_COMPLETED),)}, Fate.DELETE),
        ({}, {"rules": (Rule(action=RuleAction.SKIP),)}, Fate.STAY),
        ({}, {"rules": (Rule(timeout=timedelta(hours=1)),)}, Fate.EVICT),
        ({"empty_dir": True}, {"empty_dir": EvictOrBlock.BLOCK}, Fate.BLOCK),
        ({"owner": None}, {}, Fate.BLOCK),
        ({}, {"on_timeout": OnTimeout.HOLD}, Fate.EVICT),
        ({}, {"timeout": timedelta()}, Fate.EVICT),
    ],
)
def test_what_the_timeout_overrides(changes: dict[str, object], drain: dict[str, object], fate: Fate) -> None:
    settings = Drain(**({"timeout": timedelta(minutes=1), "on_timeout": OnTimeout.DELETE} | drain))  # type: ignore[arg-type]
    assert judge(some(**changes), settings, Circumstances(NOW, started=NOW - timedelta(minutes=2))).fate is fate


def test_a_pause_moves_the_deadline() -> None:
    drain = Drain(timeout=timedelta(minutes=10), on_timeout=OnTimeout.DELETE)
    seen = Circumstances(NOW, started=NOW - timedelta(minutes=20), paused=timedelta(minutes=15))
    assert judge(some(), drain, seen).fate is Fate.EVICT


def test_a_pod_whose_daemon_set_is_gone_is_unmanaged() -> None:
    orphan = some(owner=Owner("DaemonSet", "d", "o"), created=NOW - timedelta(minutes=1))
    assert judge(orphan, Drain(), Circumstances(NOW, daemon_sets={"s": frozenset({"o"})})).fate is Fate.STAY
    gone = Circumstances(NOW, daemon_sets={"s": frozenset()})
    assert judge(orphan, Drain(), gone).cause is BlockerClass.UNMANAGED
    assert judge(orphan, Drain(unmanaged=EvictOrBlock.EVICT), gone).fate is Fate.EVICT
    newborn = some(owner=Owner("DaemonSet", "d", "o"), created=NOW)
    assert judge(newborn, Drain(), gone).fate is Fate.STAY


def test_rules_see_the_labels_of_namespaces() -> None:
    drain = Drain(rules=(Rule(namespace_selector=LabelSelector(match_labels={"t": "a"}), order=7),))
    assert judge(some(), drain, Circumstances(NOW, labels={"s": {"t": "a"}})).order == 7
    assert judge(some(), drain, Circumstances(NOW, labels={"s": {"t": "b"}})).order == 0


def test_a_stuck_pods_finalizers_are_named_in_words_that_stay_the_same() -> None:
    stuck = some(deleting=NOW - timedelta(seconds=11), grace=600, finalizers=("example.com/backup",))
    verdict, later = (judge(stuck, Drain(), Circumstances(NOW + timedelta(minutes=m))) for m in (0, 1))
    assert "example.com/backup" in verdict.message
    assert "finalizers" in verdict.hint
    assert verdict == later


@pytest.mark.parametrize("value", ["requird", "WhenBlocked", "", "x" * 1024])
def test_the_owner_is_told_of_a_wish_that_nobody_can_read(value: str) -> None:
    note = judge(some(annotations={names.REPLACEMENT: value}), Drain(), Circumstances(NOW)).note
    assert "must be one of Required, Preferred, Never" in note
    assert len(note) < 300


def test_all_that_cannot_be_read_is_told_in_one_word() -> None:
    wishes = {names.REPLACEMENT: "maybe", names.DO_NOT_DISRUPT: "5 hours"}
    note = judge(some(annotations=wishes, owner=None), Drain(), Circumstances(NOW)).note
    assert "write it like 90s" in note
    assert "'maybe'" in note


def test_a_pod_that_ends_or_stays_needs_no_word() -> None:
    for changes in ({"deleting": NOW}, {"mirror": True}):
        assert not judge(some(annotations={names.REPLACEMENT: "maybe"}, **changes), Drain(), Circumstances(NOW)).note


def test_protection_for_the_longest_time_ends() -> None:
    pod = some(annotations={names.DO_NOT_DISRUPT: "99999h99999h"}, started=NOW)
    assert judge(pod, Drain(), Circumstances(NOW)).cause is BlockerClass.DO_NOT_DISRUPT


def test_a_grace_period_of_years_is_named_and_one_of_hours_is_awaited() -> None:
    ends = {
        hours: judge(some(deleting=NOW + timedelta(hours=hours)), Drain(), Circumstances(NOW)) for hours in (23, 24)
    }
    assert (ends[23].fate, ends[23].cause) == (Fate.LEAVING, None)
    assert (ends[24].fate, ends[24].cause) == (Fate.LEAVING, BlockerClass.STUCK_TERMINATING)
    assert "until 2026-01-02 00:00Z" in ends[24].message
