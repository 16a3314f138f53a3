"""Limit how many NamespacePools the API server evaluates for each pod that is created outside pools.

A pool costs about 50 microseconds, and milliseconds if it names thousands of namespaces. A few exclusive pools are
enough to know that one exists. The other pools get a label, and the binding's selector skips them. A label that comes
late costs time and changes no decision.
"""

from collections.abc import Iterable

from rescheduler.api import names
from rescheduler.api.policies import Mode
from rescheduler.api.pools import NamespacePool
from rescheduler.core.model.raw import RawObject

_EVALUATED_POOLS = 3  # two of them may be deleted while the operator is away


def _rank(pool: NamespacePool) -> tuple[bool, int, str]:
    """Return the sort key: exclusive pools first, then pools with few names, which are read fastest."""
    exclusive = pool.spec.exclusive and pool.spec.mode is Mode.ENFORCE
    return not exclusive, len(pool.spec.namespaces), pool.name


def skipped_pools(pools: Iterable[NamespacePool]) -> frozenset[str]:
    """Return the names of the pools that admission may skip."""
    return frozenset(pool.name for pool in sorted(pools, key=_rank)[_EVALUATED_POOLS:])


def skip_label_patch(pool: NamespacePool, *, skip: bool) -> RawObject | None:
    """Return the patch that sets or removes the label of skipped pools; None if the pool is right."""
    if pool.admission_skip == skip:
        return None
    label = {names.ADMISSION_SKIP: "true" if skip else None}
    return {"metadata": {"labels": label, "resourceVersion": pool.resource_version, "uid": pool.uid}}
