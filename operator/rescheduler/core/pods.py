"""Pods on a node being drained: what each is, and whether it leaves, stays, or blocks.

The order of the questions matters: what stays is decided before what blocks, so that a DaemonSet's pod with
an emptyDir never appears as a blocker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from rescheduler.api import names
from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import Drain, EvictOrBlock, Rule, RuleAction
from rescheduler.core.facts import parse_time

CORDON_TAINT = "node.kubernetes.io/unschedulable"
FINISHED = ("Succeeded", "Failed")
_RUN_TWICE_OWNERS = ("ReplicaSet", "ReplicationController")
_CRITICAL = ("system-cluster-critical", "system-node-critical")
CRITICAL_ORDER = 1_000_000
"""Order of system-*-critical pods that no rule names (DESIGN: they leave after all others)."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller of a pod, by its ownerReference."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Toleration:
    """One toleration of a pod; an empty key with `Exists` tolerates everything."""

    key: str
    operator: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod on a node that is drained.

    Attributes:
        grace: its terminationGracePeriodSeconds.
        deleting: its deletionTimestamp, which has the grace in it already.
        claims: names of its PersistentVolumeClaims.
    """

    namespace: str
    name: str
    uid: str
    node: str = ""
    phase: str = "Running"
    ready: bool = False
    owner: Owner | None = None
    priority: int = 0
    priority_class: str = ""
    grace: int = 30
    started: datetime | None = None
    deleting: datetime | None = None
    finalizers: tuple[str, ...] = ()
    mirror: bool = False
    empty_dir: bool = False
    claims: tuple[str, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Namespace and name, as people write them."""
        return f"{self.namespace}/{self.name}"

    @property
    def finished(self) -> bool:
        """Its containers have ended for good: nothing is lost by removing it, and no budget counts it."""
        return self.phase in FINISHED

    @property
    def may_run_twice(self) -> bool:
        """Whether a second copy beside one that may still run harms nobody (DESIGN 5)."""
        return self.owner is not None and self.owner.kind in _RUN_TWICE_OWNERS and not self.claims

    @property
    def tolerates_cordon(self) -> bool:
        """Would be bound to the cordoned node again at once: moving it is endless."""
        return any(
            t.operator == "Exists" and t.effect in ("", "NoSchedule") and t.key in ("", CORDON_TAINT)
            for t in self.tolerations
        ) or any(
            t.operator in ("", "Equal") and t.key == CORDON_TAINT and not t.value and t.effect in ("", "NoSchedule")
            for t in self.tolerations
        )


def pod(raw: Mapping[str, Any]) -> Pod:
    """Project a raw Pod."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    owner = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
    annotations = meta.get("annotations") or {}
    volumes = spec.get("volumes") or ()
    return Pod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        node=spec.get("nodeName", ""),
        phase=status.get("phase", ""),
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()),
        owner=Owner(owner["kind"], owner["name"], owner["uid"]) if owner else None,
        priority=spec.get("priority") or 0,
        priority_class=spec.get("priorityClassName", ""),
        grace=spec.get("terminationGracePeriodSeconds", 30),
        started=parse_time(status.get("startTime")),
        deleting=parse_time(meta.get("deletionTimestamp")),
        finalizers=tuple(meta.get("finalizers") or ()),
        mirror=names.MIRROR in annotations,
        empty_dir=any("emptyDir" in volume for volume in volumes),
        claims=tuple(v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v),
        tolerations=tuple(
            Toleration(t.get("key", ""), t.get("operator", ""), t.get("value", ""), t.get("effect", ""))
            for t in spec.get("tolerations") or ()
        ),
        labels=dict(meta.get("labels") or {}),
        annotations={k: v for k, v in annotations.items() if k.startswith(names.GROUP)},
    )


class Fate(StrEnum):
    """What a drain does with a pod."""

    EVICT = "Evict"  # by the Eviction API, within its budget
    DELETE = "Delete"  # plain DELETE with UID and its own grace: on an unreachable node (DESIGN 5)
    LEAVING = "Leaving"  # Terminating already: wait
    STAY = "Stay"  # skipped: not part of the drain
    BLOCK = "Block"  # must leave, and may not: a blocker says why


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with one pod, and when among the others (lower `order` first).

    Attributes:
        cause: the blocker's class, where `fate` is BLOCK.
        message, hint: for the blocker: why, and what would unblock it.
    """

    fate: Fate
    order: int = 0
    cause: BlockerClass | None = None
    message: str = ""
    hint: str = ""


def rule_for(pod: Pod, rules: Sequence[Rule], namespace_labels: Mapping[str, str]) -> Rule | None:
    """The first rule that selects the pod; None where none does."""
    return next(
        (r for r in rules if r.namespace_selector.matches(namespace_labels) and r.pod_selector.matches(pod.labels)),
        None,
    )


def judge(
    pod: Pod,
    drain: Drain,
    *,
    now: datetime,
    namespace_labels: Mapping[str, str],
    unreachable: bool = False,
    orphaned: bool = False,
) -> Verdict:
    """What the drain does with this pod.

    `unreachable`: the node is `Ready=Unknown`. `orphaned`: its DaemonSet is gone.
    """
    if pod.mirror or (pod.owner and pod.owner.kind == "DaemonSet" and not orphaned and not pod.finished):
        return Verdict(Fate.STAY)
    rule = rule_for(pod, drain.rules, namespace_labels)
    if rule and rule.action is RuleAction.SKIP:
        return Verdict(Fate.STAY)
    order = rule.order if rule else CRITICAL_ORDER if pod.priority_class in _CRITICAL else 0
    if pod.deleting:
        return _leaving(pod, order, now)
    if pod.finished:
        return Verdict(Fate.EVICT, order)
    if pod.tolerates_cordon:
        return Verdict(Fate.STAY)
    if pod.owner is None and drain.unmanaged is EvictOrBlock.BLOCK:
        return _block(
            BlockerClass.UNMANAGED,
            order,
            "no controller would recreate this pod",
            "delete the pod by hand, or set drain.unmanaged: Evict",
        )
    if unreachable:
        return _unreachable(pod, order)
    if rule and rule.action is RuleAction.WAIT_COMPLETED:
        return _block(
            BlockerClass.WAIT_COMPLETED,
            order,
            "a rule lets this pod run to its end",
            "wait until it has completed, or change the rule",
        )
    if pod.empty_dir and drain.empty_dir is EvictOrBlock.BLOCK:
        return _block(
            BlockerClass.EMPTY_DIR,
            order,
            "its emptyDir volume would be lost",
            "save the data and delete the pod by hand, or set drain.emptyDir: Evict",
        )
    return Verdict(Fate.EVICT, order)


def _block(cause: BlockerClass, order: int, message: str, hint: str) -> Verdict:
    return Verdict(Fate.BLOCK, order, cause, message, hint)


def _leaving(pod: Pod, order: int, now: datetime) -> Verdict:
    overdue = (now - pod.deleting).total_seconds() if pod.deleting else 0
    if overdue < 10:
        return Verdict(Fate.LEAVING, order)
    held = f" and has the finalizers {', '.join(pod.finalizers)}" if pod.finalizers else ""
    return Verdict(
        Fate.LEAVING,
        order,
        BlockerClass.STUCK_TERMINATING,
        f"should have ended {overdue:.0f} s ago{held}",
        "ask whoever set the finalizers to finish" if pod.finalizers else "look at the kubelet and at its volumes",
    )


def _unreachable(pod: Pod, order: int) -> Verdict:
    """DESIGN 5: on an unreachable node only what may run twice goes without proof that the node is dead."""
    if not pod.may_run_twice:
        return _block(
            BlockerClass.WAITING_FOR_PROOF,
            order,
            "its node is unreachable: it may still run there, and must not run twice",
            "power the machine off and delete the Node, or let it come back",
        )
    # One that still counts as healthy is never deleted past its budget.
    return Verdict(Fate.EVICT if pod.ready else Fate.DELETE, order)
