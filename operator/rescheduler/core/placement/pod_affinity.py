"""Required pod affinity and anti-affinity: pods that must, or must not, share a topology domain.

Preferred terms only change the scheduler's scores, so they are not read. Source: kube-scheduler, interpodaffinity.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rescheduler.api.selectors import LabelSelector
from rescheduler.core.model.raw import REQUIRED_AFFINITY, RawObject, RawPodSpec

Labels = Mapping[str, str]
_ALL_NAMESPACES = LabelSelector()
MAX_TERMS = 100
"""Limit on terms of one pod: each term costs time for each node, so that more could block plans."""
UNKNOWN_SELECTOR = LabelSelector()
"""Stands for an unreadable selector, which may select every pod. Compare by identity."""


@dataclass(frozen=True, slots=True)
class PodAffinityTerm:
    """Required term of pod affinity or anti-affinity.

    Attributes:
        topology_key: the node label whose values are the topology domains.
        selector: selects pods by labels; None selects no pod.
        namespaces: names of the namespaces of these pods.
        namespace_selector: selects more namespaces by labels; None selects no namespace.
    """

    topology_key: str
    selector: LabelSelector | None
    namespaces: frozenset[str]
    namespace_selector: LabelSelector | None = None

    def selects(self, namespace: str, labels: Labels, namespace_labels: Mapping[str, Labels]) -> bool:
        """Whether the term selects a pod with these labels; `namespace_labels`: labels by name of the namespace."""
        if self.selector is None or not self.selector.matches(labels):
            return False
        if namespace in self.namespaces:
            return True
        return self.namespace_selector is not None and self.namespace_selector.matches(
            namespace_labels.get(namespace, {})
        )


def parse_selector(raw: RawObject | None) -> LabelSelector | None:
    """Parse a raw selector; None selects nothing, UNKNOWN_SELECTOR stands for an unreadable selector."""
    if raw is None:
        return None
    try:
        return LabelSelector.model_validate(raw)
    except ValueError:
        return UNKNOWN_SELECTOR


def required_terms(spec: RawPodSpec, namespace: str, affinity_type: str) -> tuple[PodAffinityTerm, ...]:
    """Parse the required terms of a raw pod spec; `affinity_type`: podAffinity or podAntiAffinity.

    Above MAX_TERMS terms, only topology keys and namespaces are kept. Each term then selects all pods of the namespaces.
    """
    raw_terms = ((spec.get("affinity") or {}).get(affinity_type) or {}).get(REQUIRED_AFFINITY) or ()
    if len(raw_terms) > MAX_TERMS:
        keys = sorted({raw["topologyKey"] for raw in raw_terms})[:MAX_TERMS]
        namespaces = frozenset(name for raw in raw_terms for name in raw.get("namespaces") or (namespace,))
        everywhere = any("namespaceSelector" in raw for raw in raw_terms)
        return tuple(
            PodAffinityTerm(key, UNKNOWN_SELECTOR, namespaces, _ALL_NAMESPACES if everywhere else None) for key in keys
        )
    return tuple(_parse_term(raw, namespace) for raw in raw_terms)


def _parse_term(raw: RawObject, pod_namespace: str) -> PodAffinityTerm:
    selector, namespace_selector = raw.get("labelSelector"), raw.get("namespaceSelector")
    names = raw.get("namespaces") or ()
    # The API server merges matchLabelKeys and mismatchLabelKeys into the selector when it creates the pod.
    return PodAffinityTerm(
        raw["topologyKey"],
        parse_selector(selector),
        frozenset(names if names or namespace_selector is not None else (pod_namespace,)),
        parse_selector(namespace_selector)
        if namespace_selector
        else None
        if namespace_selector is None
        else _ALL_NAMESPACES,
    )
