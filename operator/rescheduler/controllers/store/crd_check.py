"""Check whether the CRDs on the cluster are older than the operator: at the start, and again every few minutes."""

from collections.abc import Callable, Mapping
from functools import cache

import structlog

from rescheduler.api import crds, names
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.store.informers import OWN_KINDS
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.model.crd_fields import missing_fields, stored_fields
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError, Client

log = structlog.get_logger("rescheduler.store.crd_check")

_CHECK_INTERVAL, _SHORT_CHECK_INTERVAL = 600.0, 60.0  # seconds
_MAX_LOGGED = 20


@cache
def _known_fields() -> Mapping[str, frozenset[str]]:
    """Return the fields of this version by resource."""
    return {resource: stored_fields(crd) for resource, crd in crds.crds().items()}


class CrdCheck:
    """Report the fields that the API server does not store, because the CRDs are older than the operator.

    `on_change` is called when they change, so that the conditions of all objects change soon.
    """

    def __init__(self, client: Client, store: Store, metrics: Metrics, on_change: Callable[[], None]) -> None:
        self._client, self._store, self._metrics, self._on_change = client, store, metrics, on_change

    async def step(self) -> float:
        """Check once; return the seconds until the next check."""
        missing = {kind: await self._missing(kind) for kind in OWN_KINDS}
        before = self._store.cache.missing_fields or {}
        for kind, fields in missing.items():
            self._metrics.crd_missing_fields.labels(paths.crd_name(kind)).set(len(fields))
            if fields and fields != before.get(kind):
                listed = fields[:_MAX_LOGGED]
                log.error("crd.outdated", crd=paths.crd_name(kind), missing=listed, hint=names.UPGRADE_HINT)
            elif before.get(kind) and not fields:
                log.info("crd.current", crd=paths.crd_name(kind))
        is_changed = missing != self._store.cache.missing_fields
        self._store.cache.missing_fields = missing
        if is_changed:
            self._on_change()
        return _SHORT_CHECK_INTERVAL if any(missing.values()) else _CHECK_INTERVAL

    async def _missing(self, kind: ResourceKind) -> tuple[str, ...]:
        """Return the fields that the CRD lacks; empty if there is no CRD: that is reported elsewhere."""
        selector = f"metadata.name={paths.crd_name(kind)}"
        try:
            found = await self._client.get(paths.CUSTOM_RESOURCE_DEFINITIONS, fieldSelector=selector)
        except ApiError as error:
            if error.code != 404:
                raise
            return ()
        return missing_fields(_known_fields()[kind], stored_fields(found["items"][0])) if found["items"] else ()
