"""Decide which labels a kubelet may set on its own Node."""

import pytest

from rescheduler.api.names import NODE_POOL
from rescheduler.api.selectors import LabelSelector
from rescheduler.core.pools.kubelet_labels import kubelet_may_set, required_keys


@pytest.mark.parametrize(
    "key",
    [
        "disk",
        "example.com/disk",
        "cloud.google.com/gke-nodepool",
        "kubernetes.io.example.com/x",
        "notk8s.io/x",
        "kubernetes.io",  # a name without a domain
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "topology.kubernetes.io/zone",
        "node.kubernetes.io/anything",
        "x.kubelet.kubernetes.io/anything",
    ],
)
def test_kubelet_may_set_its_labels_and_all_of_other_domains(key: str) -> None:
    assert kubelet_may_set(key)


@pytest.mark.parametrize(
    "key",
    [
        "node-restriction.kubernetes.io/disk",
        "example.com.node-restriction.kubernetes.io/disk",
        NODE_POOL,
        "node-role.kubernetes.io/worker",
        "kubernetes.io/role",
        "k8s.io/x",
        "kops.k8s.io/instancegroup",
        "topology.kubernetes.io/rack",
        "notnode-restriction.kubernetes.io/x",
    ],
)
def test_kubelet_may_not_set_restricted_or_unknown_kubernetes_labels(key: str) -> None:
    assert not kubelet_may_set(key)


def test_only_labels_that_must_exist_are_required() -> None:
    expressions = [
        {"key": "a", "operator": "In", "values": ["x"]},
        {"key": "b", "operator": "Exists"},
        {"key": "c", "operator": "NotIn", "values": ["x"]},
        {"key": "d", "operator": "DoesNotExist"},
    ]
    selector = LabelSelector.model_validate({"matchLabels": {"e": "x"}, "matchExpressions": expressions})
    assert required_keys(selector) == {"a", "b", "e"}
