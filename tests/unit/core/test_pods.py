"""What a drain does with each kind of pod."""

from datetime import UTC, datetime, timedelta

import pytest

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import Drain, EvictOrBlock, Rule, RuleAction
from rescheduler.api.selectors import LabelSelector
from rescheduler.core.pods import CRITICAL_ORDER, Fate, Owner, Pod, Toleration, judge, pod

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
    verdict = judge(some(**changes), Drain(**drain), now=NOW, namespace_labels={})  # type: ignore[arg-type]
    assert (verdict.fate, verdict.cause) == (fate, cause)


@pytest.mark.parametrize(
    ("changes", "fate"),
    [
        ({"ready": False}, Fate.DELETE),
        ({"ready": True}, Fate.EVICT),  # still counted as healthy: only within its budget
        ({"ready": False, "claims": ("data",)}, Fate.BLOCK),
        ({"ready": False, "owner": Owner("StatefulSet", "db", "o")}, Fate.BLOCK),
        ({"ready": False, "owner": Owner("Foo", "x", "o")}, Fate.BLOCK),
        ({"ready": False, "owner": None}, Fate.BLOCK),
    ],
)
def test_on_an_unreachable_node_only_what_may_run_twice_goes(changes: dict[str, object], fate: Fate) -> None:
    assert judge(some(**changes), Drain(), now=NOW, namespace_labels={}, unreachable=True).fate is fate


def test_the_first_rule_that_selects_decides() -> None:
    skip = Rule(pod_selector=LabelSelector(match_labels={"a": "b"}), action=RuleAction.SKIP)
    later = Rule(order=5)
    drain = Drain(rules=(skip, later))
    assert judge(some(labels={"a": "b"}), drain, now=NOW, namespace_labels={}).fate is Fate.STAY
    assert judge(some(), drain, now=NOW, namespace_labels={}).order == 5


def test_critical_pods_leave_last() -> None:
    critical = some(priority_class="system-cluster-critical")
    assert judge(critical, Drain(), now=NOW, namespace_labels={}).order == CRITICAL_ORDER


def test_a_raw_pod_is_projected() -> None:
    raw = {
        "metadata": {
            "namespace": "s",
            "name": "p",
            "uid": "u",
            "ownerReferences": [
                {"kind": "X", "name": "x", "uid": "1"},
                {"kind": "Job", "name": "j", "uid": "2", "controller": True},
            ],
            "annotations": {"kubernetes.io/config.mirror": "m", "rescheduler.dev/do-not-disrupt": "true", "big": "x"},
        },
        "spec": {"nodeName": "n", "volumes": [{"emptyDir": {}}, {"persistentVolumeClaim": {"claimName": "c"}}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    seen = pod(raw)
    assert seen.owner == Owner("Job", "j", "2")
    assert (seen.mirror, seen.empty_dir, seen.claims, seen.ready, seen.grace) == (True, True, ("c",), True, 30)
    assert seen.annotations == {"rescheduler.dev/do-not-disrupt": "true"}
