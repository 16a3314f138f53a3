"""Pods that rebalancing may move."""

from datetime import UTC, datetime
from typing import Any

import pytest

from rescheduler.api.policies import DrainRule, DrainSettings, ReplacementMode, RuleAction
from rescheduler.api.selectors import LabelSelector
from rescheduler.core.eviction.pod_actions import EvictionContext
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.listed_pods import parse_listed_pod
from rescheduler.core.model.node_affinity import NodeConstraints
from rescheduler.core.model.workloads import parse_deployment
from rescheduler.core.rebalance.candidates import (
    candidate_from_pod,
    check_deployment,
    is_allowed_by_budgets,
    is_deployment_stable,
)
from rescheduler.core.rebalance.selection import Candidate

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ALL = LabelSelector()
ALLOWS = DisruptionBudget("s", "b", "b", selector=ALL, allowed=1)
FULL = DisruptionBudget("s", "b", "b", selector=ALL, allowed=0, healthy=3, needed=3)
ZONES = {"topologyKey": "zone", "maxSkew": 1}
APART: dict[str, Any] = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}


def raw(kind: str = "ReplicaSet", *, meta: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "app", "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}}
    return {
        "metadata": {
            "namespace": "s",
            "name": "p",
            "uid": "p",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "pod-template-hash": "a"},
            "ownerReferences": [{"kind": kind, "name": "web-a", "uid": "r", "controller": True}],
            **(meta or {}),
        },
        "spec": {"nodeName": "n", "containers": [container], **spec},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def judged(pod: dict[str, Any], *budgets: DisruptionBudget, own: str = "", **drain: Any) -> Candidate | None:
    found = candidate_from_pod(parse_listed_pod(pod), DrainSettings(**drain), EvictionContext(NOW, own_pod=own))
    return found if found and is_allowed_by_budgets(found, budgets) else None


def test_a_pod_of_a_deployment_may_be_moved_whatever_its_budget_allows() -> None:
    for budgets in ([], [ALLOWS], [FULL]):
        found = judged(raw(nodeSelector={"disk": "ssd"}), *budgets)
        assert found is not None
        assert found.can_be_replaced_first
        assert found.requests == {"cpu": 100, "memory": 2**30}
        assert found.node_constraints == NodeConstraints({"nodeSelector": {"disk": "ssd"}})


@pytest.mark.parametrize("kind", ["StatefulSet", "ReplicationController"])
def test_a_pod_without_replacement_first_needs_a_budget(kind: str) -> None:
    found = judged(raw(kind), ALLOWS)
    assert found is not None
    assert not found.can_be_replaced_first
    for budgets in ([], [FULL], [ALLOWS, ALLOWS]):
        assert judged(raw(kind), *budgets) is None


def test_a_pod_that_refuses_replacement_first_needs_a_budget() -> None:
    pod = raw(meta={"annotations": {"rescheduler.dev/replacement": "Never"}})
    for found in (
        judged(pod, ALLOWS),
        judged(raw(), ALLOWS, replacement=ReplacementMode.NEVER),
        judged(raw(), ALLOWS, replacement=ReplacementMode.WHEN_BLOCKED),
    ):
        assert found is not None
        assert not found.can_be_replaced_first
    assert judged(pod) is None


@pytest.mark.parametrize("kind", ["DaemonSet", "Job", "Something"])
def test_pods_of_other_owners_stay(kind: str) -> None:
    assert judged(raw(kind), ALLOWS) is None


@pytest.mark.parametrize(
    "meta",
    [
        {"ownerReferences": []},
        {"annotations": {"kubernetes.io/config.mirror": "x"}},
        {"annotations": {"rescheduler.dev/do-not-disrupt": "true"}},
        {"annotations": {"karpenter.sh/do-not-disrupt": "true"}},
        {"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}},
        {"annotations": {"descheduler.alpha.kubernetes.io/prefer-no-eviction": ""}},
        {"labels": {"app": "web", "pod-template-hash": "a", "paguro.dev/migratable": "true"}},
        {"deletionTimestamp": "2026-01-01T12:00:30Z"},
    ],
)
def test_unmanaged_and_protected_pods_stay(meta: dict[str, Any]) -> None:
    assert judged(raw(meta=meta), ALLOWS) is None


@pytest.mark.parametrize(
    "spec",
    [
        {"priority": 2_000_000_000, "priorityClassName": "system-cluster-critical"},
        {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "d"}}]},
        {"volumes": [{"name": "d", "hostPath": {"path": "/d"}}]},
        {"nodeSelector": {"kubernetes.io/hostname": "n"}},
        {"affinity": {"podAntiAffinity": APART}},
        {"affinity": {"podAffinity": APART}},
        {"topologySpreadConstraints": [{**ZONES, "whenUnsatisfiable": "DoNotSchedule"}]},
        {"containers": [{"name": "app", "ports": [{"hostPort": 80}]}]},
        {"hostNetwork": True},
        {"schedulerName": "other"},
        {"resourceClaims": [{"name": "gpu"}]},
    ],
)
def test_pods_with_unsupported_constraints_stay(spec: dict[str, Any]) -> None:
    assert judged(raw(**spec), ALLOWS) is None


def test_soft_constraints_do_not_count() -> None:
    soft = raw(topologySpreadConstraints=[{**ZONES, "whenUnsatisfiable": "ScheduleAnyway"}])
    assert judged(soft) is not None


def test_a_pod_that_is_not_ready_stays() -> None:
    pod = raw()
    pod["status"]["conditions"][0]["status"] = "False"
    assert judged(pod, ALLOWS) is None


def test_a_pod_that_a_drain_would_not_move_stays() -> None:
    web = LabelSelector(match_labels={"app": "web"})
    for action in (RuleAction.SKIP, RuleAction.WAIT_COMPLETED):
        assert judged(raw(), rules=(DrainRule(pod_selector=web, action=action),)) is None
    cache = raw(volumes=[{"name": "cache", "emptyDir": {}}])
    assert judged(cache) is not None
    assert judged(cache, empty_dir="Block") is None


def test_the_operators_own_pod_stays() -> None:
    assert judged(raw(), ALLOWS, own="s/p") is None


DEPLOYMENT: dict[str, Any] = {
    "metadata": {"namespace": "s", "name": "web", "uid": "d", "generation": 2},
    "spec": {"replicas": 3},
    "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3},
}


@pytest.mark.parametrize(
    ("where", "changes", "expected"),
    [
        ("spec", {}, True),
        ("spec", {"strategy": {"type": "Recreate"}}, False),
        ("spec", {"strategy": {"rollingUpdate": {"maxSurge": 0}}}, False),
        ("spec", {"paused": True}, False),
        ("status", {"observedGeneration": 1}, False),
        ("status", {"updatedReplicas": 2}, False),
        ("status", {"readyReplicas": 2}, False),
        ("status", {"replicas": 4}, False),
        ("metadata", {"deletionTimestamp": "2026-01-01T00:00:00Z"}, False),
    ],
)
def test_a_deployment_is_stable_if_all_pods_are_current_and_ready(
    where: str, changes: dict[str, Any], expected: bool
) -> None:
    assert is_deployment_stable(parse_deployment(DEPLOYMENT | {where: DEPLOYMENT[where] | changes})) is expected


def test_a_pod_of_an_unstable_deployment_stays() -> None:
    found = judged(raw())
    assert found is not None
    assert check_deployment(found, {("s", "web"): True}) is found
    assert check_deployment(found, {("s", "web"): False}) is None


def test_a_pod_without_deployment_cannot_be_replaced_first() -> None:
    found = judged(raw())
    assert found is not None
    alone = check_deployment(found, {("s", "other"): True})
    assert alone is not None
    assert not alone.can_be_replaced_first


def test_a_rule_decides_whether_a_pod_is_replaced_first() -> None:
    rule = DrainRule(replacement=ReplacementMode.NEVER)
    assert judged(raw(), rules=(rule,)) is None
    found = judged(raw(), ALLOWS, rules=(rule,))
    assert found is not None
    assert not found.can_be_replaced_first


def test_a_read_only_file_of_the_node_does_not_keep_a_pod_there() -> None:
    volume = {"name": "d", "hostPath": {"path": "/etc/localtime", "type": "File"}}
    mount = {"name": "d", "readOnly": True}
    container = {**raw()["spec"]["containers"][0], "volumeMounts": [mount]}
    assert judged(raw(volumes=[volume], containers=[container])) is not None
