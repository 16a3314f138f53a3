"""Decide which labels of a Node its own kubelet may set, by Kubernetes' admission plugin NodeRestriction.

A compromised kubelet can set these labels to attract pods of a pool to its node. The rules are those of
plugin/pkg/admission/noderestriction/admission.go and k8s.io/kubelet/pkg/apis/well_known_labels.go.
"""

from rescheduler.api.selectors import LabelSelector, LabelSelectorOperator

_RESTRICTED_DOMAIN = "node-restriction.kubernetes.io"
_KUBERNETES_DOMAINS = ("kubernetes.io", "k8s.io")
_KUBELET_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_KUBELET_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    }
)


def kubelet_may_set(key: str) -> bool:
    """Whether a kubelet may set, change or remove this label of its own Node."""
    domain = key.rpartition("/")[0]
    if _is_within(domain, (_RESTRICTED_DOMAIN,)):
        return False
    return not _is_within(domain, _KUBERNETES_DOMAINS) or key in _KUBELET_LABELS or _is_within(domain, _KUBELET_DOMAINS)


def required_keys(selector: LabelSelector) -> set[str]:
    """Return the keys of the labels that a selected node must have; NotIn and DoesNotExist require no label."""
    positive = {
        r.key
        for r in selector.match_expressions
        if r.operator in (LabelSelectorOperator.IN, LabelSelectorOperator.EXISTS)
    }
    return positive | set(selector.match_labels)


def _is_within(domain: str, parents: tuple[str, ...]) -> bool:
    return any(domain == parent or domain.endswith(f".{parent}") for parent in parents)
