"""Usage of nodes from metrics.k8s.io, if the cluster serves it: a few samples of each node.

Usage of pods is not read, because the metrics API returns all pods in a single response.
"""

from collections import deque
from collections.abc import Iterable

import structlog

from rescheduler.api.untrusted import bounded_text
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.core.model import object_schemas
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.resource_requests import parse_resource_list
from rescheduler.core.rebalance.utilization import MIN_USAGE_SAMPLES, CpuMemory
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError, Client

log = structlog.get_logger("rescheduler.rebalance.node_usage")

_MAX_TIMESTAMP_LENGTH = 64
_UNAVAILABLE_CODES = (403, 404, 503)  # 503: the aggregated API server is down

UsageSamples = deque[tuple[str, CpuMemory]]
"""The last samples of a node, each with the timestamp of the metrics API."""


class NodeUsage:
    """The last usage samples of each node."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._samples: dict[str, UsageSamples] = {}
        # By node: timestamp of the last sample before the last moves of its group.
        self._last_sample_before_move: dict[str, str] = {}
        self._is_available: bool | None = None

    async def sample(self) -> None:
        """Read one sample of each node. A cluster without the metrics API is no error.

        Raises ApiError for any other refusal.
        """
        samples_by_node: dict[str, UsageSamples] = {}
        try:
            async for page in self._client.list(paths.NODE_METRICS):
                for raw in readable_objects(page.get("items") or (), object_schemas.sanitize_node_metrics):
                    samples_by_node[raw["metadata"]["name"]] = self._add_sample(raw)
        except ApiError as error:
            if error.code not in _UNAVAILABLE_CODES:
                raise
        if self._is_available != bool(samples_by_node):
            self._is_available = bool(samples_by_node)
            log.info("metrics.available" if samples_by_node else "metrics.unavailable")
        self._samples = samples_by_node
        self._last_sample_before_move = {
            name: time for name, time in self._last_sample_before_move.items() if name in samples_by_node
        }

    def _add_sample(self, raw: RawObject) -> UsageSamples:
        samples = self._samples.get(raw["metadata"]["name"]) or deque(maxlen=MIN_USAGE_SAMPLES)
        time = bounded_text(raw.get("timestamp"), _MAX_TIMESTAMP_LENGTH)
        if not samples or samples[-1][0] != time:
            samples.append((time, CpuMemory.from_amounts(parse_resource_list(raw.get("usage"), default=0))))
        return samples

    def samples_of(self, node_name: str) -> tuple[tuple[CpuMemory, ...], tuple[CpuMemory, ...]]:
        """Return the samples of a node since the last moves of its group, and all its samples."""
        samples = self._samples.get(node_name) or ()
        last_before = self._last_sample_before_move.get(node_name, "")
        return tuple(usage for time, usage in samples if time > last_before), tuple(usage for _, usage in samples)

    def record_moves(self, node_names: Iterable[str]) -> None:
        """Record that pods moved between these nodes: earlier samples no longer show the usage of their pods."""
        for name in node_names:
            if samples := self._samples.get(name):
                self._last_sample_before_move[name] = samples[-1][0]
