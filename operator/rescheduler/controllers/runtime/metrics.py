"""Metrics of the operator, listed in docs/reference/metrics.md.

Names follow controller-runtime and client-go if they have the metric. No label has the name of a pod, a node or a
namespace: the series would grow forever. Names of pools and policies are bounded (`bounded_name`).
"""

import platform
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, ProcessCollector

from rescheduler.api.drains import BlockerClass
from rescheduler.core.replacement.failures import ReplacementFailure

_MAX_NAMES = 100
OTHER_NAMES = "other"
"""Value of a label for all names beyond the first 100."""
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_WORK_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60)
_MINUTE_BUCKETS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """All metrics, in their own registry."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self._names: set[str] = set()
        self._add_drain_metrics(registry)
        self._add_failure_metrics(registry)
        self._add_rebalance_metrics(registry)
        self._add_stock_metrics(registry)
        self._add_process_metrics(registry)

    def _add_drain_metrics(self, registry: CollectorRegistry) -> None:
        self.evictions = Counter(
            "rescheduler_evictions",
            "Evictions and deletes. outcome: accepted, gone, refused or retry. cause: the blocker class, or empty.",
            ["outcome", "cause"],
            registry=registry,
        )
        self.pods_moved = Counter("rescheduler_pods_moved", "Pods that have left drained nodes.", registry=registry)
        self.pods_moved_again = Counter(
            "rescheduler_pods_moved_again",
            "Of these, replacements of pods that moved within the hour before. 0 is good.",
            registry=registry,
        )
        self.moves_per_pod = Histogram(
            "rescheduler_moves_per_pod",
            "How often a pod that leaves and the pods before it have moved within an hour. 1 is good.",
            buckets=(1, 2, 3, 5, 10),
            registry=registry,
        )
        self.replacements = Counter(
            "rescheduler_replacements",
            "way: Release (released), GiveBack (returned), Settle (the record was removed).",
            ["way"],
            registry=registry,
        )
        self.replacement_seconds = Histogram(
            "rescheduler_replacement_seconds",
            "Seconds from the release of a pod until its replacement is Ready.",
            buckets=_MINUTE_BUCKETS,
            registry=registry,
        )
        self.replacement_failures = Counter(
            "rescheduler_replacement_failures",
            "Replacements that did not come up, after which the owner backs off, by cause.",
            ["cause"],
            registry=registry,
        )
        for failure in ReplacementFailure:  # a series that begins above 0 would hide its first increase from alerts
            self.replacement_failures.labels(failure)
        self.released_pods_taken = Counter(
            "rescheduler_released_pods_taken",
            "Released pods that another client removed before their replacement was Ready.",
            registry=registry,
        )
        self.orphaned_released_pods = Gauge(
            "rescheduler_orphaned_released_pods",
            "Released pods that no drain and no move looks after, as of the last scan.",
            registry=registry,
        )
        self.not_replaced_first = Counter(
            "rescheduler_not_replaced_first",
            "Pods evicted without a replacement first, by reason (docs/reference/nodedrain.md).",
            ["reason"],
            registry=registry,
        )
        self.slot_seconds = Histogram(
            "rescheduler_slot_latency_seconds",
            "Seconds from a PodDisruptionBudget that allows an eviction again to the next accepted eviction under it.",
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 15, 60),
            registry=registry,
        )
        self.blocked_seconds = Counter(
            "rescheduler_blocked_seconds",
            "Seconds for which pods were blockers, counted when a blocker ends, by class.",
            ["class"],
            registry=registry,
        )
        self.drain_seconds = Histogram(
            "rescheduler_drain_duration_seconds",
            "Seconds from the cordon to Drained.",
            buckets=(5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400),
            registry=registry,
        )

    def _add_failure_metrics(self, registry: CollectorRegistry) -> None:
        self.failover_seconds = Histogram(
            "rescheduler_failover_seconds",
            "Stages of a drain for a failure. Detected: from the last renewal of the Lease to the NodeDrain. Started, "
            "Released, Drained: from the NodeDrain to the cordon, to the first released or moved pod, and to Drained.",
            ["stage"],
            buckets=_MINUTE_BUCKETS,
            registry=registry,
        )
        self.false_alarms = Counter(
            "rescheduler_false_alarms",
            "Nodes whose Lease was silent for leaseTimeout, and that renewed it before Kubernetes gave the node up.",
            registry=registry,
        )

    def _add_rebalance_metrics(self, registry: CollectorRegistry) -> None:
        self.rebalance_moves = Counter(
            "rescheduler_rebalance_moves",
            "Moves of rebalancing. outcome: Moved, Returned or Withdrawn.",
            ["pool", "outcome"],
            registry=registry,
        )
        self.load_deviation = Gauge(
            "rescheduler_node_load_deviation",
            "Rebalancing score: standard deviation of the requested share of the nodes. resource: cpu or memory. 0 is even.",
            ["pool", "policy", "resource"],
            registry=registry,
        )

    def _add_stock_metrics(self, registry: CollectorRegistry) -> None:
        self.reconcile_total = Counter(
            "controller_runtime_reconcile",
            "Reconciliations. controller: node, drain or pool. result: success or error.",
            ["controller", "result"],
            registry=registry,
        )
        self.reconcile_seconds = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "Seconds of one reconciliation.",
            ["controller"],
            buckets=_WORK_BUCKETS,
            registry=registry,
        )
        self.queue_depth = Gauge("workqueue_depth", "Keys that wait in the queue.", ["name"], registry=registry)
        self.queue_adds = Counter("workqueue_adds", "Keys added to the queue.", ["name"], registry=registry)
        self.queue_retries = Counter(
            "workqueue_retries", "Keys added again after a failure.", ["name"], registry=registry
        )
        self.queue_seconds = Histogram(
            "workqueue_queue_duration_seconds",
            "Seconds for which a key waits in the queue.",
            ["name"],
            buckets=_WORK_BUCKETS,
            registry=registry,
        )
        self.work_seconds = Histogram(
            "workqueue_work_duration_seconds",
            "Seconds for which a worker handles a key.",
            ["name"],
            buckets=_WORK_BUCKETS,
            registry=registry,
        )
        self.requests = Counter(
            "rest_client_requests",
            "Requests to the API server. code 0: no answer.",
            ["method", "resource", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "rest_client_request_duration_seconds",
            "Seconds from a request to the headers of its answer, without watches.",
            ["verb"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.leader = Gauge("leader_election_master_status", "1 while this process leads.", ["name"], registry=registry)

    def _add_process_metrics(self, registry: CollectorRegistry) -> None:
        self.build_info = Gauge(
            "rescheduler_build_info",
            "Always 1. The labels have the versions.",
            ["version", "python"],
            registry=registry,
        )
        self.build_info.labels(_own_version(), platform.python_version()).set(1)
        self.troubles = Counter(
            "rescheduler_troubles",
            "Problems below the controllers: watch.failed, object.unreadable, signin.failed. The log has each cause.",
            ["event"],
            registry=registry,
        )
        self.watches_waiting = Gauge(
            "rescheduler_watches_waiting", "Watches that wait for a connection. They take turns.", registry=registry
        )
        self.unreadable_objects = Gauge(
            "rescheduler_unreadable_objects",
            "Objects that this version cannot read; the last readable version stays in effect.",
            ["kind"],
            registry=registry,
        )
        self.crd_missing_fields = Gauge(
            "rescheduler_crd_missing_fields",
            "Fields, enum values and served versions that the CRD on the cluster lacks, because it is older than the operator.",
            ["crd"],
            registry=self.registry,
        )
        self.task_failures = Counter(
            "rescheduler_task_failures",
            "Unexpected failures of the operator's own tasks, each of which was started again, by kind of task.",
            ["task"],
            registry=registry,
        )
        self.clock_offset = Gauge(
            "rescheduler_clock_offset_seconds",
            "Seconds that the API server's clock is ahead of the operator's clock.",
            registry=registry,
        )

    def count_request(self, method: str, resource: str, code: int) -> None:
        """Count one request to the API server."""
        self.requests.labels(method, resource, str(code)).inc()

    def time_request(self, method: str, seconds: float) -> None:
        """Observe the time of one request to the API server."""
        self.request_seconds.labels(method).observe(seconds)

    def count_blocked(self, blocker_class: str, seconds: int) -> None:
        """Count the seconds of a blocker that has ended; a class that does not exist is another client's write."""
        if blocker_class in tuple(BlockerClass):
            self.blocked_seconds.labels(blocker_class).inc(seconds)

    def bounded_name(self, name: str) -> str:
        """Return the name of a pool or policy as a label; `other` for all names beyond the first 100."""
        if name not in self._names and len(self._names) >= _MAX_NAMES:
            return OTHER_NAMES
        self._names.add(name)
        return name


def _own_version() -> str:
    try:
        return version("rescheduler")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
