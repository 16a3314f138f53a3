"""Metrics of the operator, listed in docs/reference/metrics.md.

Names follow controller-runtime if it has the metric. No label has the name of a pod: the series would grow forever.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """All metrics, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rest_client_requests",
            "Requests to the API server; code 0 means no answer.",
            ["method", "resource", "code"],
            registry=self.registry,
        )
        self.troubles = Counter(
            "rescheduler_troubles",
            "Problems below the controllers: watches, unreadable objects and credentials.",
            ["event"],
            registry=self.registry,
        )
        self.watches_waiting = Gauge(
            "rescheduler_watches_waiting",
            "Watches that wait for a connection to the API server.",
            registry=self.registry,
        )
        self.evictions = Counter(
            "rescheduler_evictions", "Evictions and deletes by outcome.", ["outcome", "cause"], registry=self.registry
        )
        self.pods_moved = Counter(
            "rescheduler_pods_moved", "Pods that have left drained nodes.", registry=self.registry
        )
        self.pods_moved_again = Counter(
            "rescheduler_pods_moved_again",
            "Moved pods that were created less than an hour after another pod of their owner was moved.",
            registry=self.registry,
        )
        self.replacements = Counter(
            "rescheduler_replacements",
            "Pods released, returned, and cleared of their release record.",
            ["way"],
            registry=self.registry,
        )
        self.released_pods_taken = Counter(
            "rescheduler_released_pods_taken",
            "Released pods that another client removed before their replacement was Ready.",
            registry=self.registry,
        )
        self.orphaned_released_pods = Gauge(
            "rescheduler_orphaned_released_pods",
            "Released pods without a drain or a move, as of the last scan.",
            registry=self.registry,
        )
        self.not_replaced_first = Counter(
            "rescheduler_not_replaced_first",
            "Pods evicted without a replacement first, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.drain_seconds = Histogram(
            "rescheduler_drain_duration_seconds",
            "Seconds from the cordon to Drained.",
            buckets=(5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400),
            registry=self.registry,
        )
        self.rebalance_moves = Counter(
            "rescheduler_rebalance_moves",
            "Attempts to move a pod from a fuller to an emptier node, by outcome.",
            ["pool", "outcome"],
            registry=self.registry,
        )
        self.load_deviation = Gauge(
            "rescheduler_node_load_deviation",
            "Standard deviation of the requested share of the nodes, for policies with rebalance enabled.",
            ["pool", "policy", "resource"],
            registry=self.registry,
        )
        self.reconcile_total = Counter(
            "controller_runtime_reconcile",
            "Reconciliations by controller and result.",
            ["controller", "result"],
            registry=self.registry,
        )
        self.unreadable_objects = Gauge(
            "rescheduler_unreadable_objects",
            "Objects that this version of the operator cannot read; the last readable version stays in effect.",
            ["kind"],
            registry=self.registry,
        )
        self.crd_missing_fields = Gauge(
            "rescheduler_crd_missing_fields",
            "Fields and enum values that the CRD on the cluster lacks, because it is older than the operator.",
            ["crd"],
            registry=self.registry,
        )
        self.task_failures = Counter(
            "rescheduler_task_failures",
            "Unexpected failures of the operator's own tasks, by kind of task.",
            ["task"],
            registry=self.registry,
        )
        self.clock_offset = Gauge(
            "rescheduler_clock_offset_seconds",
            "Seconds that the API server's clock is ahead of the operator's.",
            registry=self.registry,
        )
        self.leader = Gauge(
            "leader_election_master_status", "1 while this process holds the Lease.", ["name"], registry=self.registry
        )

    def count_request(self, method: str, resource: str, code: int) -> None:
        """Count one request to the API server."""
        self.requests.labels(method, resource, str(code)).inc()
