"""What nodes use, by metrics.k8s.io, where that is served: a few samples of each, and nothing of pods.

Only nodes are asked for: a list of all pods' usage cannot be had in pieces.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import structlog

from rescheduler.api.untrusted import bounded_text
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.core.model import object_schemas
from rescheduler.core.model.resource_requests import parse_resource_list
from rescheduler.core.rebalance.utilization import MIN_USAGE_SAMPLES, CpuMemory
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError, Client

log = structlog.get_logger("rescheduler.usages")

_MAX_TIMESTAMP_LENGTH = 64
_UNAVAILABLE_CODES = (403, 404, 503)  # 503: what serves it is down

UsageSamples = deque[tuple[str, CpuMemory]]
"""The last ones, each with its time as the server says it."""


class NodeUsage:
    """The last samples of each node, by name."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._samples: dict[str, UsageSamples] = {}
        self._last_sample_before_move: dict[
            str, str
        ] = {}  # by node: the time of the last sample before pods were moved there
        self._is_available: bool | None = None

    async def sample(self) -> None:
        """Ask once; what is not served is no error."""
        found: dict[str, UsageSamples] = {}
        try:
            async for page in self._client.list(paths.NODE_METRICS):
                for raw in readable_objects(page.get("items") or (), object_schemas.sanitize_node_metrics):
                    found[raw["metadata"]["name"]] = self._add_sample(raw)
        except ApiError as error:
            if error.code not in _UNAVAILABLE_CODES:
                raise
        if self._is_available != bool(found):
            self._is_available = bool(found)
            log.info("metrics.available" if found else "metrics.unavailable")
        self._samples = found
        self._last_sample_before_move = {
            name: time for name, time in self._last_sample_before_move.items() if name in found
        }

    def _add_sample(self, raw: Mapping[str, Any]) -> UsageSamples:
        samples = self._samples.get(raw["metadata"]["name"]) or deque(maxlen=MIN_USAGE_SAMPLES)
        time = bounded_text(raw.get("timestamp"), _MAX_TIMESTAMP_LENGTH)
        if not samples or samples[-1][0] != time:
            samples.append((time, CpuMemory.from_amounts(parse_resource_list(raw.get("usage"), default=0))))
        return samples

    def samples_of(self, node_name: str) -> tuple[tuple[CpuMemory, ...], tuple[CpuMemory, ...]]:
        """Samples of a node since pods were last moved there, and all that are known."""
        samples = self._samples.get(node_name) or ()
        since = self._last_sample_before_move.get(node_name, "")
        return tuple(pair for time, pair in samples if time > since), tuple(pair for _, pair in samples)

    def record_moves(self, node_names: Iterable[str]) -> None:
        """Pods were moved among these nodes: what they used before says nothing of what they will use."""
        for name in node_names:
            if samples := self._samples.get(name):
                self._last_sample_before_move[name] = samples[-1][0]
