"""Metrics of the state of the cluster, computed from the store at each scrape.

The store has no pods, so a scrape costs the same in a cluster with many pods. Both replicas export these metrics.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from rescheduler.api.drains import BlockerClass, NodeDrain, Phase
from rescheduler.api.pools import NamespacePool, Resources
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.eligibility.windows import window_state
from rescheduler.core.model.quantities import parse_quantity
from rescheduler.core.model.wait_reasons import ProgressingReason
from rescheduler.kube.client import Client

_RESOURCES = ("cpu", "memory", "pods")
_SURVIVES = {"True": 1.0, "False": 0.0}


class StateMetrics(Collector):
    """Collects the metrics of the store, and the age of the watches of a client."""

    def __init__(self, client: Client, store: Store, metrics: Metrics, now: Callable[[], datetime]) -> None:
        self._client, self._store, self._metrics, self._now = client, store, metrics, now

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return the metrics without samples, so that a registration reads no store."""
        return [family for _, family in sorted(families().items())]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the metrics of this moment."""
        found, now = families(), self._now()
        drains, pools = list(self._store.drains.values()), list(self._store.cache.objects(ResourceKind.POOL).values())
        _add_drains(found, drains, now)
        for pool in sorted(pools, key=lambda pool: pool.name):
            _add_pool(found, pool, self._metrics.bounded_name(pool.name))
        state = self._store.state_builder
        found["blackout"].add_metric((), float(bool(state.blackout_reason)))
        if state.listed_at:
            found["list_age"].add_metric((), (now - state.listed_at).total_seconds())
        for resource, age in self._client.watches.ages(asyncio.get_running_loop().time()).items():
            found["watch_age"].add_metric((resource,), age)
        for kind in ResourceKind:
            found["objects"].add_metric((kind,), len(self._store.cache.objects(kind)))
        policies = self._store.cache.policies.values()
        found["invalid_windows"].add_metric(
            (), sum(bool(window_state(policy.spec.maintenance.windows, now).error) for policy in policies)
        )
        yield from found.values()


def families() -> dict[str, GaugeMetricFamily]:
    """Return the metrics without samples."""

    def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"rescheduler_{name}", text, labels=labels)

    return {
        "drains": gauge("drains", "NodeDrains by phase.", "phase"),
        "waiting": gauge("drains_waiting", "NodeDrains that wait, by the reason of Progressing=False.", "reason"),
        "blocked": gauge(
            "drain_blocked_seconds", "Seconds for which the oldest blocker of each class has blocked a drain.", "class"
        ),
        "blockers": gauge("blockers", "Pods that block drains, by class.", "class"),
        "brake": gauge("storm_brake", "1 while a drain waits because many nodes fail at once."),
        "blackout": gauge("view_blackout", "1 while so many Leases are silent that the operator doubts its own view."),
        "fill": gauge(
            "pool_fill_ratio",
            "Requested share of what the nodes of a pool have. resource: cpu, memory or pods.",
            "pool",
            "resource",
        ),
        "survives": gauge(
            "pool_survives_node_loss",
            "1 if the pods of a pool fit without its fullest node, 0 if not. Absent while unknown.",
            "pool",
        ),
        "outside": gauge("pool_pods_outside", "Pods of a pool's namespaces that run outside the pool.", "pool"),
        "unschedulable": gauge(
            "pool_pods_unschedulable", "Pods of a pool's namespaces for which the scheduler has no node.", "pool"
        ),
        "list_age": gauge(
            "list_age_seconds", "Seconds since nodes, policies, pools and NodeDrains were listed in full."
        ),
        "watch_age": gauge(
            "watch_age_seconds",
            "Seconds since the oldest watch of a resource delivered a list, an event or a bookmark.",
            "resource",
        ),
        "objects": gauge("cached_objects", "Objects in memory, by kind. Pods are not kept.", "kind"),
        "invalid_windows": gauge(
            "policies_with_invalid_window", "Policies with a maintenance window that never opens."
        ),
    }


def _add_drains(found: Mapping[str, GaugeMetricFamily], drains: list[NodeDrain], now: datetime) -> None:
    phases = Counter(drain.status.phase or Phase.WAITING for drain in drains)
    for phase in Phase:
        found["drains"].add_metric((phase,), phases[phase])
    reasons = Counter(drain.status.waiting for drain in drains)
    for reason in ProgressingReason:
        found["waiting"].add_metric((reason,), reasons[reason])
    found["brake"].add_metric((), float(reasons[ProgressingReason.STORM] > 0))
    blockers = [blocker for drain in drains for blocker in drain.status.blockers]
    counts = Counter(blocker.class_ for blocker in blockers)
    oldest: dict[BlockerClass, float] = {}
    for blocker in blockers:
        age = max(0.0, (now - blocker.since).total_seconds())
        oldest[blocker.class_] = max(age, oldest.get(blocker.class_, 0.0))
    for class_ in BlockerClass:
        found["blockers"].add_metric((class_,), counts[class_])
        found["blocked"].add_metric((class_,), oldest.get(class_, 0.0))


def _add_pool(found: Mapping[str, GaugeMetricFamily], pool: NamespacePool, label: str) -> None:
    if any(sample.labels["pool"] == label for sample in found["outside"].samples):
        return  # one of the pools beyond the limit: a second sample of one series would be refused
    status = pool.status
    for resource in _RESOURCES:
        requested, allocatable = (_amount(sums, resource) for sums in (status.requested, status.allocatable))
        if requested is not None and allocatable:
            found["fill"].add_metric((label, resource), requested / allocatable)
    survives = next((c.status for c in status.conditions if c.type == "SurvivesNodeLoss"), "")
    if survives in _SURVIVES:
        found["survives"].add_metric((label,), _SURVIVES[survives])
    found["outside"].add_metric((label,), status.pods_outside or 0)
    found["unschedulable"].add_metric((label,), status.pods_unschedulable or 0)


def _amount(sums: Resources | None, resource: str) -> int | None:
    text = getattr(sums, resource) if sums else None
    return parse_quantity(resource, text, 0) if text is not None else None
