"""Which pools admission looks at for every pod that is created outside pools, to know whether an exclusive one exists.

It has no other way than to look at all of them, and each costs it some 50 microseconds, one with thousands of names
milliseconds. A few can speak for all. One that nobody knows yet has no label and is looked at: this may be late.
"""

from collections.abc import Iterable
from typing import Any

from rescheduler.api import names
from rescheduler.api.policies import Mode
from rescheduler.api.pools import NamespacePool

_EVALUATED_POOLS = 3  # two of them may be deleted while the operator is away


def _rank(pool: NamespacePool) -> tuple[bool, int, str]:
    """Exclusive ones first, then those that are read fastest."""
    exclusive = pool.spec.exclusive and pool.spec.mode is Mode.ENFORCE
    return not exclusive, len(pool.spec.namespaces), pool.name


def skipped_pools(pools: Iterable[NamespacePool]) -> frozenset[str]:
    """Names of the pools that need not be looked at."""
    return frozenset(pool.name for pool in sorted(pools, key=_rank)[_EVALUATED_POOLS:])


def skip_label_patch(pool: NamespacePool, *, skip: bool) -> dict[str, Any] | None:
    """Label the pool so; None where it is."""
    if pool.admission_skip == skip:
        return None
    label = {names.ADMISSION_SKIP: "true" if skip else None}
    return {"metadata": {"labels": label, "resourceVersion": pool.resource_version, "uid": pool.uid}}
