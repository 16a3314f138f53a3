"""What nodes use, by metrics.k8s.io, where that is served: a few samples of each, and nothing of pods.

Only nodes are asked for: a list of all pods' usage cannot be had in pieces.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import structlog

from rescheduler.api.untrusted import text
from rescheduler.controllers.runtime.readable import readable
from rescheduler.core.model import object_schemas
from rescheduler.core.model.resource_requests import amounts
from rescheduler.core.rebalance.utilization import STEADY, Pair
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError, Client

log = structlog.get_logger("rescheduler.usages")

_MOST_TIME = 64
_NOT_SERVED = (403, 404, 503)  # 503: what serves it is down

Samples = deque[tuple[str, Pair]]
"""The last ones, each with its time as the server says it."""


class Usages:
    """The last samples of each node, by name."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._samples: dict[str, Samples] = {}
        self._moved: dict[str, str] = {}  # by node: the time of the last sample before pods were moved there
        self._served: bool | None = None

    async def sample(self) -> None:
        """Ask once; what is not served is no error."""
        found: dict[str, Samples] = {}
        try:
            async for page in self._client.list(paths.NODE_METRICS):
                for raw in readable(page.get("items") or (), object_schemas.usage):
                    found[raw["metadata"]["name"]] = self._taken(raw)
        except ApiError as error:
            if error.code not in _NOT_SERVED:
                raise
        if self._served != bool(found):
            self._served = bool(found)
            log.info("usages.served" if found else "usages.not_served")
        self._samples = found
        self._moved = {name: time for name, time in self._moved.items() if name in found}

    def _taken(self, raw: Mapping[str, Any]) -> Samples:
        samples = self._samples.get(raw["metadata"]["name"]) or deque(maxlen=STEADY)
        time = text(raw.get("timestamp"), _MOST_TIME)
        if not samples or samples[-1][0] != time:
            samples.append((time, Pair.of(amounts(raw.get("usage"), otherwise=0))))
        return samples

    def of(self, name: str) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
        """Samples of a node since pods were last moved there, and all that are known."""
        samples = self._samples.get(name) or ()
        since = self._moved.get(name, "")
        return tuple(pair for time, pair in samples if time > since), tuple(pair for _, pair in samples)

    def begin_anew(self, names: Iterable[str]) -> None:
        """Pods were moved among these nodes: what they used before says nothing of what they will use."""
        for name in names:
            if samples := self._samples.get(name):
                self._moved[name] = samples[-1][0]
