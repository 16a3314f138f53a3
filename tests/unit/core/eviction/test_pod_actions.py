"""The action of a drain for each kind of pod."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from rescheduler.api import names
from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import DrainRule, DrainSettings, EvictOrBlock, OnTimeout, RuleAction
from rescheduler.api.selectors import LabelSelector
from rescheduler.core.eviction import messages
from rescheduler.core.eviction.pod_actions import (
    CRITICAL_ORDER,
    OWN_POD_ORDER,
    EvictionContext,
    PodAction,
    PodDecision,
    RequiredProof,
    bypass_budget,
    decide_action,
    needs_placement,
)
from rescheduler.core.model.pods import Owner, Pod, Toleration
from rescheduler.core.model.volumes import NodeVolumes, VolumeClaim
from unit.builders import NOW

REPLICA_SET = Owner("ReplicaSet", "web", "o")
ANYTHING = (Toleration("", "Exists", "", ""),)


def some(**changes: object) -> Pod:
    base: dict[str, object] = {"namespace": "s", "name": "p", "uid": "u", "owner": REPLICA_SET, "ready": True}
    return Pod(**(base | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "drain", "fate", "cause"),
    [
        ({}, {}, PodAction.EVICT, None),
        ({"is_mirror": True, "owner": None}, {}, PodAction.SKIP, None),
        ({"owner": Owner("DaemonSet", "d", "o")}, {}, PodAction.SKIP, None),
        ({"owner": Owner("DaemonSet", "d", "o"), "phase": "Failed"}, {}, PodAction.EVICT, None),
        (
            {"owner": Owner("DaemonSet", "d", "o"), "has_empty_dir": True},
            {"empty_dir": EvictOrBlock.BLOCK},
            PodAction.SKIP,
            None,
        ),
        ({"owner": None}, {}, PodAction.BLOCK, BlockerClass.UNMANAGED),
        ({"owner": None}, {"unmanaged": EvictOrBlock.EVICT}, PodAction.EVICT, None),
        ({"owner": None, "phase": "Succeeded"}, {}, PodAction.EVICT, None),
        ({}, {"rules": (DrainRule(action=RuleAction.WAIT_COMPLETED),)}, PodAction.BLOCK, BlockerClass.WAIT_COMPLETED),
        ({"phase": "Succeeded"}, {"rules": (DrainRule(action=RuleAction.WAIT_COMPLETED),)}, PodAction.EVICT, None),
        ({"has_empty_dir": True}, {}, PodAction.EVICT, None),
        ({"has_empty_dir": True}, {"empty_dir": EvictOrBlock.BLOCK}, PodAction.BLOCK, BlockerClass.EMPTY_DIR),
        ({"has_empty_dir": True, "phase": "Failed"}, {"empty_dir": EvictOrBlock.BLOCK}, PodAction.EVICT, None),
        ({"tolerations": ANYTHING}, {}, PodAction.EVICT, None),
        (
            {"tolerations": (Toleration("node.kubernetes.io/unschedulable", "Exists", "", ""),)},
            {},
            PodAction.EVICT,
            None,
        ),
        ({"tolerations": ANYTHING, "pinned_to_node": True}, {}, PodAction.SKIP, None),
        ({"pinned_to_node": True}, {}, PodAction.EVICT, None),
        (
            {"owner": None, "tolerations": ANYTHING},
            {},
            PodAction.BLOCK,
            BlockerClass.UNMANAGED,
        ),
        (
            {"owner": None, "tolerations": ANYTHING},
            {"unmanaged": EvictOrBlock.EVICT},
            PodAction.EVICT,
            None,
        ),
        (
            {"owner": None, "is_mirror": True, "tolerations": ANYTHING},
            {"unmanaged": EvictOrBlock.EVICT},
            PodAction.SKIP,
            None,
        ),
        ({"tolerations": (Toleration("other", "Exists", "", ""),)}, {}, PodAction.EVICT, None),
        ({"tolerations": (Toleration("", "Exists", "", "NoExecute"),)}, {}, PodAction.EVICT, None),
        ({"deletion_timestamp": NOW}, {}, PodAction.WAIT_TERMINATING, None),
        ({"deletion_timestamp": NOW - timedelta(seconds=9)}, {}, PodAction.WAIT_TERMINATING, None),
        (
            {"deletion_timestamp": NOW - timedelta(seconds=11)},
            {},
            PodAction.WAIT_TERMINATING,
            BlockerClass.STUCK_TERMINATING,
        ),
    ],
)
def test_each_kind_of_pod_has_its_action(
    changes: dict[str, object], drain: dict[str, object], fate: PodAction, cause: BlockerClass | None
) -> None:
    verdict = decide_action(some(**changes), DrainSettings(**drain), EvictionContext(NOW))
    assert (verdict.action, verdict.blocker_class) == (fate, cause)


RWO, RWX = VolumeClaim("s", "data", "v", single_node=True), VolumeClaim("s", "data", "v")
LOST = {"ready": False}
KINDS = [
    # what may run twice goes without proof
    ({}, None, PodAction.DELETE),
    ({"owner": Owner("ReplicationController", "rc", "o")}, None, PodAction.DELETE),
    ({"owner": Owner("Job", "j", "eager")}, None, PodAction.DELETE),
    ({"claims": ("data",)}, RWX, PodAction.DELETE),
    ({"ephemeral_claims": ("p-scratch",)}, VolumeClaim("s", "p-scratch", "v", single_node=True), PodAction.DELETE),
    ({"has_empty_dir": True, "host_paths": ("/d",), "has_host_data": True}, None, PodAction.DELETE),
    ({"annotations": {"rescheduler.dev/do-not-disrupt": "true"}}, None, PodAction.DELETE),
    # the rest waits
    ({"claims": ("data",)}, RWO, PodAction.BLOCK),
    ({"claims": ("unknown",)}, RWX, PodAction.BLOCK),
    ({"has_inline_disk": True}, None, PodAction.BLOCK),
    ({"owner": Owner("Job", "j", "patient")}, None, PodAction.BLOCK),
    ({"owner": Owner("StatefulSet", "db", "o")}, None, PodAction.BLOCK),
    ({"owner": Owner("StatefulSet", "db", "o"), "claims": ("data",)}, RWO, PodAction.BLOCK),
    ({"owner": Owner("Foo.example.com", "x", "o")}, None, PodAction.BLOCK),
    ({"owner": Owner("ReplicaSet.example.com", "x", "o")}, None, PodAction.BLOCK),
    ({"owner": None}, None, PodAction.BLOCK),
]


def unreachable(claim: VolumeClaim | None = None, **changes: object) -> EvictionContext:
    volumes = NodeVolumes({(claim.namespace, claim.name): claim} if claim else {})
    given: dict[str, object] = {
        "node_unreachable": True,
        "node_failing": True,
        "replacing_jobs": frozenset({"eager"}),
        "volumes": volumes,
    }
    return EvictionContext(NOW, **(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("changes", "claim", "fate"), KINDS)
def test_on_an_unreachable_node_only_what_may_run_twice_goes(
    changes: dict[str, object], claim: VolumeClaim | None, fate: PodAction
) -> None:
    drain = DrainSettings(unmanaged=EvictOrBlock.EVICT, empty_dir=EvictOrBlock.BLOCK)
    verdict = decide_action(some(**(LOST | changes)), drain, unreachable(claim, proof_hint="how"))
    assert verdict.action is fate
    if fate is PodAction.BLOCK:
        assert (verdict.blocker_class, verdict.hint) == (BlockerClass.WAITING_FOR_PROOF, "how")
    else:
        assert (verdict.required_proof, verdict.only_if_unchanged, verdict.grace_seconds) == (
            RequiredProof.NODE_UNREACHABLE,
            True,
            None,
        )


@pytest.mark.parametrize(("changes", "claim", "fate"), KINDS)
def test_all_kinds_of_pods_leave_with_proof(
    changes: dict[str, object], claim: VolumeClaim | None, fate: PodAction
) -> None:
    drain = DrainSettings(unmanaged=EvictOrBlock.EVICT)
    verdict = decide_action(some(**(LOST | changes)), drain, unreachable(claim, boot_dead=True))
    assert verdict.action is PodAction.DELETE
    assert verdict.only_if_unchanged
    assert verdict.required_proof is (
        RequiredProof.BOOT_DEAD if fate is PodAction.BLOCK else RequiredProof.NODE_UNREACHABLE
    )


@pytest.mark.parametrize(("changes", "claim", "fate"), KINDS)
def test_one_that_still_counts_as_healthy_keeps_its_budget(
    changes: dict[str, object], claim: VolumeClaim | None, fate: PodAction
) -> None:
    drain = DrainSettings(unmanaged=EvictOrBlock.EVICT)
    assert decide_action(some(**changes), drain, unreachable(claim, boot_dead=True)).action is PodAction.EVICT
    assert decide_action(some(**changes), drain, unreachable(claim)).action is not PodAction.DELETE


@pytest.mark.parametrize(("changes", "claim", "fate"), KINDS)
def test_a_terminating_pod_is_gone_unless_it_waits_for_proof(
    changes: dict[str, object], claim: VolumeClaim | None, fate: PodAction
) -> None:
    pod = some(**(LOST | changes | {"deletion_timestamp": NOW - timedelta(hours=1)}))
    waits = fate is PodAction.BLOCK
    without = decide_action(pod, DrainSettings(), unreachable(claim))
    assert without.action is PodAction.WAIT_TERMINATING
    assert (without.blocker_class is BlockerClass.WAITING_FOR_PROOF) is waits
    proven = decide_action(pod, DrainSettings(), unreachable(claim, boot_dead=True))
    assert proven.action is PodAction.WAIT_TERMINATING
    assert (proven.required_proof is RequiredProof.BOOT_DEAD) is waits


@pytest.mark.parametrize(
    ("changes", "drain", "fate", "cause"),
    [
        ({"is_mirror": True, "owner": None}, {}, PodAction.SKIP, None),
        ({"owner": Owner("DaemonSet", "d", "o")}, {}, PodAction.SKIP, None),
        ({}, {"rules": (DrainRule(action=RuleAction.SKIP),)}, PodAction.SKIP, None),
        ({"owner": None}, {}, PodAction.BLOCK, BlockerClass.UNMANAGED),
        (
            {"tolerations": ANYTHING, "owner": None},
            {},
            PodAction.BLOCK,
            BlockerClass.UNMANAGED,
        ),
        ({"claims": ("local",)}, {}, PodAction.BLOCK, BlockerClass.LOCAL_VOLUME),
        ({}, {"rules": (DrainRule(action=RuleAction.WAIT_COMPLETED),)}, PodAction.DELETE, None),
        ({"phase": "Succeeded"}, {}, PodAction.EVICT, None),
    ],
)
@pytest.mark.parametrize("dead", [False, True])
def test_what_holds_on_an_unreachable_node_too(
    changes: dict[str, object], drain: dict[str, object], fate: PodAction, cause: BlockerClass | None, dead: bool
) -> None:
    volumes = NodeVolumes({("s", "local"): VolumeClaim("s", "local", "here")}, frozenset({"here"}))
    seen = unreachable(boot_dead=dead, volumes=volumes)
    verdict = decide_action(some(**(LOST | changes)), DrainSettings(**drain), seen)
    assert (verdict.action, verdict.blocker_class) == (fate, cause)


@pytest.mark.parametrize(("changes", "claim", "fate"), KINDS)
def test_a_pod_that_tolerates_the_cordon_stays_on_an_unreachable_node_until_its_boot_is_dead(
    changes: dict[str, object], claim: VolumeClaim | None, fate: PodAction
) -> None:
    tolerating = some(**(LOST | changes | {"tolerations": ANYTHING}))
    if tolerating.owner is None:
        return  # no controller would recreate it: it is like any other such pod
    drain = DrainSettings(unmanaged=EvictOrBlock.EVICT, timeout=timedelta(minutes=1), on_timeout=OnTimeout.DELETE)
    late = {"started_at": NOW - timedelta(minutes=2)}
    stays = decide_action(tolerating, drain, unreachable(claim, **late))
    assert (stays.action, stays.message) == (PodAction.SKIP, messages.TOLERATING_AND_UNREACHABLE)
    proven = unreachable(claim, boot_dead=True, **late)
    other = some(**(LOST | changes))
    assert decide_action(tolerating, drain, proven) == decide_action(other, drain, proven)


def test_the_move_of_a_pod_that_tolerates_the_cordon_goes_on_when_its_node_becomes_unreachable() -> None:
    tolerating, other = some(released=True, tolerations=ANYTHING), some(released=True)
    assert decide_action(tolerating, DrainSettings(), unreachable()) == decide_action(
        other, DrainSettings(), unreachable()
    )


BACK = frozenset({("s", "o")})


@pytest.mark.parametrize("unreachable", [False, True])
def test_an_owner_that_ignores_the_cordon_is_a_blocker_after_three_pods(unreachable: bool) -> None:
    drain = DrainSettings(timeout=timedelta(seconds=1), on_timeout=OnTimeout.DELETE, empty_dir=EvictOrBlock.BLOCK)
    seen = EvictionContext(NOW, NOW - timedelta(hours=1), node_unreachable=unreachable, came_back=BACK)
    verdict = decide_action(some(has_empty_dir=True), drain, seen)
    assert (verdict.action, verdict.blocker_class) == (PodAction.BLOCK, BlockerClass.REPLACEMENT_NOT_READY)
    assert "3 new pods of ReplicaSet web" in verdict.message
    assert "spec.nodeName" in verdict.message
    assert verdict.hint.startswith("stop or scale down ReplicaSet web")
    assert not needs_placement(some(owner=None), verdict)


def test_a_pod_that_tolerates_the_cordon_stays_after_three_pods_and_says_why() -> None:
    verdict = decide_action(some(tolerations=ANYTHING), DrainSettings(), EvictionContext(NOW, came_back=BACK))
    assert verdict.action is PodAction.SKIP
    assert verdict.message.endswith("and 3 new pods of ReplicaSet web started on this node again")
    assert not needs_placement(some(), verdict)


@pytest.mark.parametrize(
    ("changes", "fate"),
    [
        ({"namespace": "other"}, PodAction.EVICT),  # a UID of another namespace says nothing
        ({"owner": Owner("ReplicaSet", "web", "newer")}, PodAction.EVICT),
        ({"phase": "Failed"}, PodAction.EVICT),
        ({"deletion_timestamp": NOW}, PodAction.WAIT_TERMINATING),
        ({"owner": Owner("DaemonSet", "d", "o")}, PodAction.SKIP),
    ],
)
def test_pods_that_came_back_change_nothing_for_others(changes: dict[str, object], fate: PodAction) -> None:
    assert decide_action(some(**changes), DrainSettings(), EvictionContext(NOW, came_back=BACK)).action is fate


@pytest.mark.parametrize(("changes", "claim", "fate"), KINDS)
def test_the_timeout_overrides_budgets_but_never_a_missing_proof(
    changes: dict[str, object], claim: VolumeClaim | None, fate: PodAction
) -> None:
    drain = DrainSettings(timeout=timedelta(minutes=1), on_timeout=OnTimeout.DELETE, unmanaged=EvictOrBlock.EVICT)
    late = {"started_at": NOW - timedelta(minutes=2)}
    assert decide_action(some(**changes), drain, unreachable(claim, **late)).action is fate
    verdict = decide_action(some(**changes), drain, unreachable(claim, boot_dead=True, **late))
    assert (verdict.action, verdict.grace_seconds) == (PodAction.DELETE, 1)
    assert verdict.required_proof is (
        RequiredProof.BOOT_DEAD if fate is PodAction.BLOCK else RequiredProof.NODE_UNREACHABLE
    )


def test_while_a_failure_is_not_known_for_sure_nothing_is_deleted() -> None:
    seen = unreachable(node_failing=False)
    assert decide_action(some(ready=False), DrainSettings(), seen).action is PodAction.EVICT
    stateful = some(ready=False, owner=Owner("StatefulSet", "db", "o"))
    assert decide_action(stateful, DrainSettings(), seen).blocker_class is BlockerClass.WAITING_FOR_PROOF


@pytest.mark.parametrize(
    ("changes", "seen", "past"),
    [
        ({"ready": False}, {}, True),
        ({"ready": False, "owner": Owner("Job", "j", "eager")}, {}, True),
        ({"ready": True}, {}, False),
        ({"ready": False, "owner": Owner("StatefulSet", "db", "o")}, {}, False),
        ({"ready": False, "has_inline_disk": True}, {}, False),
        ({"ready": False}, {"node_failing": False}, False),
        ({"ready": False}, {"node_unreachable": True}, False),
    ],
)
def test_an_unready_pod_of_a_reachable_failed_node_bypasses_its_budget(
    changes: dict[str, object], seen: dict[str, object], past: bool
) -> None:
    given: dict[str, object] = {"node_failing": True, "replacing_jobs": frozenset({"eager"})}
    around = EvictionContext(NOW, **(given | seen))  # type: ignore[arg-type]
    held = PodDecision(PodAction.EVICT, 3)
    expected = PodDecision(PodAction.DELETE, 3, only_if_unchanged=True) if past else held
    assert bypass_budget(some(**changes), held, around) == expected


def test_the_first_rule_that_selects_decides() -> None:
    skip = DrainRule(pod_selector=LabelSelector(match_labels={"a": "b"}), action=RuleAction.SKIP)
    later = DrainRule(order=5)
    drain = DrainSettings(rules=(skip, later))
    assert decide_action(some(labels={"a": "b"}), drain, EvictionContext(NOW)).action is PodAction.SKIP
    assert decide_action(some(), drain, EvictionContext(NOW)).order == 5


def test_critical_pods_leave_last() -> None:
    critical = some(priority_class="system-cluster-critical")
    assert decide_action(critical, DrainSettings(), EvictionContext(NOW)).order == CRITICAL_ORDER


def test_our_own_pod_leaves_after_all_others() -> None:
    drain = DrainSettings(rules=(DrainRule(order=2_000_000_000),))
    assert decide_action(some(), drain, EvictionContext(NOW, own_pod="s/p")).order == OWN_POD_ORDER > 2_000_000_000


@pytest.mark.parametrize(
    ("value", "started", "fate", "noted"),
    [
        ("true", NOW, PodAction.BLOCK, False),
        ("4h", NOW - timedelta(hours=3), PodAction.BLOCK, False),
        ("4h", NOW - timedelta(hours=5), PodAction.EVICT, False),
        ("4h", None, PodAction.BLOCK, False),
        ("false", NOW, PodAction.EVICT, False),
        ("0s", NOW, PodAction.EVICT, True),
        ("-4h", NOW, PodAction.EVICT, True),
        ("yes please", NOW, PodAction.EVICT, True),
    ],
)
def test_do_not_disrupt(value: str, started: datetime | None, fate: PodAction, noted: bool) -> None:
    pod = some(annotations={"rescheduler.dev/do-not-disrupt": value}, started=started)
    verdict = decide_action(pod, DrainSettings(), EvictionContext(NOW))
    assert (verdict.action, bool(verdict.owner_message)) == (fate, noted)
    assert (
        decide_action(pod, DrainSettings(), EvictionContext(NOW, node_unreachable=True)).action is not PodAction.BLOCK
    )


@pytest.mark.parametrize(
    ("honour", "annotation", "tool"),
    [
        ([], "", ""),
        (["cluster-autoscaler"], "cluster-autoscaler.kubernetes.io/safe-to-evict", "cluster-autoscaler"),
        (["karpenter"], "karpenter.sh/do-not-disrupt", "karpenter"),
        # The opt-out that ends last is named.
        (["karpenter", "cluster-autoscaler"], "cluster-autoscaler.kubernetes.io/safe-to-evict", "cluster-autoscaler"),
    ],
)
def test_a_drain_waits_only_for_the_opt_outs_it_honours(honour: list[str], annotation: str, tool: str) -> None:
    wishes = {names.SAFE_TO_EVICT: "false", names.KARPENTER_DO_NOT_DISRUPT: "4h"}
    pod = some(annotations=wishes, started=NOW)
    found = decide_action(pod, DrainSettings.model_validate({"honour": honour}), EvictionContext(NOW))
    if not annotation:
        assert (found.action, found.blocker_class) == (PodAction.EVICT, None)
        return
    assert (found.action, found.blocker_class) == (PodAction.BLOCK, BlockerClass.DO_NOT_DISRUPT)
    assert found.message.startswith(f"the annotation {annotation} protects this pod")
    assert f"{annotation}-; or remove {tool} from drain.honour" in found.hint


def test_at_the_timeout_an_honoured_opt_out_no_longer_holds() -> None:
    words = {"honour": ["descheduler"], "timeout": "10m", "onTimeout": "Delete"}
    pod, drain = some(annotations={names.PREFER_NO_EVICTION: ""}), DrainSettings.model_validate(words)
    before = decide_action(pod, drain, EvictionContext(NOW, started_at=NOW - timedelta(minutes=5)))
    after = decide_action(pod, drain, EvictionContext(NOW, started_at=NOW - timedelta(minutes=10)))
    assert (before.action, after.action) == (PodAction.BLOCK, PodAction.DELETE)


@pytest.mark.parametrize(
    ("since", "grace", "fate", "given"),
    [
        (timedelta(minutes=9), 30, PodAction.EVICT, None),
        (timedelta(minutes=9, seconds=30), 30, PodAction.DELETE, 30),
        (timedelta(minutes=9, seconds=50), 30, PodAction.DELETE, 10),
        (timedelta(minutes=20), 30, PodAction.DELETE, 1),  # late: never 0
        (timedelta(minutes=5), 3600, PodAction.DELETE, 300),  # cut to half the timeout
        (timedelta(minutes=4), 3600, PodAction.EVICT, None),
        (timedelta(minutes=10), 0, PodAction.DELETE, 1),
    ],
)
def test_at_the_timeout_less_its_grace_a_pod_is_deleted(
    since: timedelta, grace: int, fate: PodAction, given: int | None
) -> None:
    drain = DrainSettings(timeout=timedelta(minutes=10), on_timeout=OnTimeout.DELETE)
    verdict = decide_action(some(grace_period_seconds=grace), drain, EvictionContext(NOW, started_at=NOW - since))
    assert (verdict.action, verdict.grace_seconds) == (fate, given)


@pytest.mark.parametrize(
    ("changes", "drain", "fate"),
    [
        ({"annotations": {"rescheduler.dev/do-not-disrupt": "true"}}, {}, PodAction.DELETE),
        ({}, {"rules": (DrainRule(action=RuleAction.WAIT_COMPLETED),)}, PodAction.DELETE),
        ({}, {"rules": (DrainRule(action=RuleAction.SKIP),)}, PodAction.SKIP),
        ({}, {"rules": (DrainRule(timeout=timedelta(hours=1)),)}, PodAction.EVICT),
        ({"has_empty_dir": True}, {"empty_dir": EvictOrBlock.BLOCK}, PodAction.BLOCK),
        ({"owner": None}, {}, PodAction.BLOCK),
        ({}, {"on_timeout": OnTimeout.HOLD}, PodAction.EVICT),
        ({}, {"timeout": timedelta()}, PodAction.EVICT),
    ],
)
def test_what_the_timeout_overrides(changes: dict[str, object], drain: dict[str, object], fate: PodAction) -> None:
    settings = DrainSettings(**({"timeout": timedelta(minutes=1), "on_timeout": OnTimeout.DELETE} | drain))
    assert (
        decide_action(some(**changes), settings, EvictionContext(NOW, started_at=NOW - timedelta(minutes=2))).action
        is fate
    )


def test_a_pause_moves_the_deadline() -> None:
    drain = DrainSettings(timeout=timedelta(minutes=10), on_timeout=OnTimeout.DELETE)
    seen = EvictionContext(NOW, started_at=NOW - timedelta(minutes=20), paused_for=timedelta(minutes=15))
    assert decide_action(some(), drain, seen).action is PodAction.EVICT


def test_a_pod_whose_daemon_set_is_gone_is_unmanaged() -> None:
    orphan = some(owner=Owner("DaemonSet", "d", "o"), created=NOW - timedelta(minutes=1))
    assert (
        decide_action(orphan, DrainSettings(), EvictionContext(NOW, daemon_set_uids={"s": frozenset({"o"})})).action
        is PodAction.SKIP
    )
    gone = EvictionContext(NOW, daemon_set_uids={"s": frozenset()})
    assert decide_action(orphan, DrainSettings(), gone).blocker_class is BlockerClass.UNMANAGED
    assert decide_action(orphan, DrainSettings(unmanaged=EvictOrBlock.EVICT), gone).action is PodAction.EVICT
    newborn = some(owner=Owner("DaemonSet", "d", "o"), created=NOW)
    assert decide_action(newborn, DrainSettings(), gone).action is PodAction.SKIP


def test_rules_see_the_labels_of_namespaces() -> None:
    drain = DrainSettings(rules=(DrainRule(namespace_selector=LabelSelector(match_labels={"t": "a"}), order=7),))
    assert decide_action(some(), drain, EvictionContext(NOW, namespace_labels={"s": {"t": "a"}})).order == 7
    assert decide_action(some(), drain, EvictionContext(NOW, namespace_labels={"s": {"t": "b"}})).order == 0


def test_a_stuck_pods_finalizers_are_named_in_words_that_stay_the_same() -> None:
    stuck = some(
        deletion_timestamp=NOW - timedelta(seconds=11), grace_period_seconds=600, finalizers=("example.com/backup",)
    )
    verdict, later = (
        decide_action(stuck, DrainSettings(), EvictionContext(NOW + timedelta(minutes=m))) for m in (0, 1)
    )
    assert "example.com/backup" in verdict.message
    assert "finalizers" in verdict.hint
    assert verdict == later


@pytest.mark.parametrize("value", ["requird", "WhenBlocked", "", "x" * 1024])
def test_the_owner_is_warned_of_an_invalid_annotation(value: str) -> None:
    note = decide_action(
        some(annotations={names.REPLACEMENT: value}), DrainSettings(), EvictionContext(NOW)
    ).owner_message
    assert note is not None
    assert "must be one of Required, Preferred, Never" in note
    assert len(note) < 300


def test_all_invalid_annotations_are_in_one_warning() -> None:
    wishes = {names.REPLACEMENT: "maybe", names.DO_NOT_DISRUPT: "5 hours"}
    note = decide_action(some(annotations=wishes, owner=None), DrainSettings(), EvictionContext(NOW)).owner_message
    assert note is not None
    assert "write it like 90s" in note
    assert "'maybe'" in note


def test_a_pod_that_ends_or_stays_gets_no_warning() -> None:
    for changes in ({"deletion_timestamp": NOW}, {"is_mirror": True}):
        assert not decide_action(
            some(annotations={names.REPLACEMENT: "maybe"}, **changes), DrainSettings(), EvictionContext(NOW)
        ).owner_message


def test_protection_for_the_longest_time_ends() -> None:
    pod = some(annotations={names.DO_NOT_DISRUPT: "99999h99999h"}, started=NOW)
    assert decide_action(pod, DrainSettings(), EvictionContext(NOW)).blocker_class is BlockerClass.DO_NOT_DISRUPT


def test_a_grace_period_of_years_is_named_and_one_of_hours_is_awaited() -> None:
    ends = {
        hours: decide_action(
            some(deletion_timestamp=NOW + timedelta(hours=hours)), DrainSettings(), EvictionContext(NOW)
        )
        for hours in (23, 24)
    }
    assert (ends[23].action, ends[23].blocker_class) == (PodAction.WAIT_TERMINATING, None)
    assert (ends[24].action, ends[24].blocker_class) == (PodAction.WAIT_TERMINATING, BlockerClass.STUCK_TERMINATING)
    assert "until 2026-01-02 00:00Z" in ends[24].message


DISK = NodeVolumes({("s", "data"): VolumeClaim("s", "data", "v", single_node=True)}, frozenset({"v"}))
STATEFUL = {"owner": Owner("StatefulSet", "db", "o")}
BLOCKED_BY_FIELD: dict[str, tuple[dict[str, object], BlockerClass]] = {
    "unmanaged": ({"owner": None}, BlockerClass.UNMANAGED),
    "empty_dir": ({"has_empty_dir": True}, BlockerClass.EMPTY_DIR),
    "local_volume": ({**STATEFUL, "claims": ("data",)}, BlockerClass.LOCAL_VOLUME),
}


@pytest.mark.parametrize("field", BLOCKED_BY_FIELD)
@pytest.mark.parametrize("of_drain", EvictOrBlock)
@pytest.mark.parametrize("of_rule", [None, *EvictOrBlock])
def test_a_field_of_a_rule_is_stronger_than_the_field_of_the_drain(
    field: str, of_drain: EvictOrBlock, of_rule: EvictOrBlock | None
) -> None:
    changes, blocker_class = BLOCKED_BY_FIELD[field]
    drain = DrainSettings(**{field: of_drain, "rules": (DrainRule(**{field: of_rule}),)})
    found = decide_action(some(**changes), drain, EvictionContext(NOW, volumes=DISK))
    blocks = (of_rule or of_drain) is EvictOrBlock.BLOCK
    assert (found.action, found.blocker_class) == (
        (PodAction.BLOCK, blocker_class) if blocks else (PodAction.EVICT, None)
    )
    assert found.rule == drain.rules[0]


def test_a_field_of_a_rule_counts_only_for_its_pods() -> None:
    rule = DrainRule(pod_selector=LabelSelector(match_labels={"a": "b"}), unmanaged=EvictOrBlock.EVICT)
    drain = DrainSettings(rules=(rule,))
    assert decide_action(some(owner=None), drain, EvictionContext(NOW)).blocker_class is BlockerClass.UNMANAGED
    assert decide_action(some(owner=None, labels={"a": "b"}), drain, EvictionContext(NOW)).action is PodAction.EVICT


@pytest.mark.parametrize("field", BLOCKED_BY_FIELD)
def test_a_pod_that_may_complete_is_waited_for_whatever_else_holds_it(field: str) -> None:
    """With another class, the hint would ask somebody to delete a pod that the policy lets run."""
    changes, blocker_class = BLOCKED_BY_FIELD[field]
    rule = DrainRule(action=RuleAction.WAIT_COMPLETED, timeout=timedelta(minutes=10))
    drain = DrainSettings(**{field: EvictOrBlock.BLOCK}, on_timeout=OnTimeout.DELETE, rules=(rule,))
    context = EvictionContext(NOW, started_at=NOW, volumes=DISK)
    assert decide_action(some(**changes), drain, context).blocker_class is BlockerClass.WAIT_COMPLETED
    late = replace(context, started_at=NOW - timedelta(minutes=10))
    assert decide_action(some(**changes), drain, late).blocker_class is blocker_class
    allowed = drain.model_copy(update={"rules": (rule.model_copy(update={field: EvictOrBlock.EVICT}),)})
    assert decide_action(some(**changes), allowed, late).action is PodAction.DELETE


def test_an_unreachable_node_waits_for_no_pod_to_complete() -> None:
    drain = DrainSettings(rules=(DrainRule(action=RuleAction.WAIT_COMPLETED),))
    assert decide_action(some(owner=None), drain, unreachable()).blocker_class is BlockerClass.UNMANAGED


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({}, False),
        ({"pinned_to_node": True}, True),
        ({**STATEFUL, "pinned_to_node": True, "deletion_timestamp": NOW}, True),
        ({**STATEFUL, "claims": ("data",)}, True),
        ({"host_paths": ("/d",), "has_host_data": True}, False),  # the scheduler may place it elsewhere
        ({"pinned_to_node": True, "owner": None}, False),
        ({"pinned_to_node": True, "phase": "Succeeded"}, False),
        ({"pinned_to_node": True, "owner": Owner("DaemonSet", "d", "o")}, False),
    ],
)
def test_a_pod_that_only_its_node_can_have_waits_for_it_and_needs_no_room(
    changes: dict[str, object], bound: bool
) -> None:
    drain = DrainSettings(local_volume=EvictOrBlock.EVICT, unmanaged=EvictOrBlock.EVICT)
    found = decide_action(some(**changes), drain, EvictionContext(NOW, volumes=DISK))
    assert (found.is_bound_to_node, found.waits_for_node) == (bound, bound)
    assert not (bound and needs_placement(some(**changes), found))


def test_a_pod_that_stays_on_its_local_volume_does_not_wait_for_its_node() -> None:
    found = decide_action(some(**STATEFUL, claims=("data",)), DrainSettings(), EvictionContext(NOW, volumes=DISK))
    assert (found.blocker_class, found.waits_for_node) == (BlockerClass.LOCAL_VOLUME, False)
