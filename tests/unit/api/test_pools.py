"""Parsing of a NamespacePool."""

from datetime import UTC, datetime

import pytest

from rescheduler.api.policies import Mode
from rescheduler.api.pools import ExistingPods, NamespacePool
from rescheduler.api.scalars import NumberOrPercent

RAW = {
    "metadata": {"name": "shop", "uid": "u", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"namespaces": ["shop"], "nodeSelector": {"matchLabels": {"disk": "ssd"}}},
}


def test_a_pool_is_read_with_its_defaults() -> None:
    pool = NamespacePool.from_object(RAW)
    assert (pool.name, pool.created) == ("shop", datetime(2026, 1, 1, tzinfo=UTC))
    spec = pool.spec
    assert (spec.exclusive, spec.mode, spec.existing_pods) == (True, Mode.ENFORCE, ExistingPods.LEAVE)
    assert spec.max_unavailable == NumberOrPercent(20, is_percent=True)
    assert spec.namespace_selector is None


def test_a_pool_without_nodes_is_refused() -> None:
    with pytest.raises(ValueError, match="nodeSelector"):
        NamespacePool.from_object({"metadata": {"name": "shop"}, "spec": {"namespaces": ["shop"]}})
