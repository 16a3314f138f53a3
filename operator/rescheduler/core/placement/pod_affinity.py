"""Required pod affinity and anti-affinity: which pods must, or must not, share a place.

Preferred terms are the scheduler's to weigh: they forbid nothing. Rules: kube-scheduler, interpodaffinity.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rescheduler.api.selectors import LabelSelector

Labels = Mapping[str, str]
_ALL_NAMESPACES = LabelSelector()
MAX_TERMS = 100
"""A pod with more has them to keep plans busy: each costs a look at each node."""
UNKNOWN_SELECTOR = LabelSelector()
"""Stands for a selector that this version cannot read: it may select every pod."""


@dataclass(frozen=True, slots=True)
class PodAffinityTerm:
    """One term, as its pod means it.

    Attributes:
        key: the node label whose values are the places.
        selector: which pods; None selects none.
        namespaces: whose pods, by name; `spaces`: and by the labels of the namespace, None selects none.
    """

    topology_key: str
    selector: LabelSelector | None
    namespaces: frozenset[str]
    namespace_selector: LabelSelector | None = None

    def selects(self, namespace: str, labels: Labels, namespace_labels: Mapping[str, Labels]) -> bool:
        """Whether a pod with these labels is meant; `spaces`: labels of namespaces, by name."""
        if self.selector is None or not self.selector.matches(labels):
            return False
        if namespace in self.namespaces:
            return True
        return self.namespace_selector is not None and self.namespace_selector.matches(
            namespace_labels.get(namespace, {})
        )


def parse_selector(raw: Mapping[str, Any] | None) -> LabelSelector | None:
    """Return a raw selector; None selects nothing, UNKNOWN stands for what cannot be read."""
    if raw is None:
        return None
    try:
        return LabelSelector.model_validate(raw)
    except ValueError:
        return UNKNOWN_SELECTOR


def required_terms(spec: Mapping[str, Any], namespace: str, affinity_type: str) -> tuple[PodAffinityTerm, ...]:
    """The required terms of a raw spec; `kind`: podAffinity or podAntiAffinity.

    Of more than MOST_TERMS only places and namespaces are kept: any pod of these namespaces may be meant.
    """
    found = ((spec.get("affinity") or {}).get(affinity_type) or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or ()
    if len(found) > MAX_TERMS:
        keys = sorted({raw["topologyKey"] for raw in found})[:MAX_TERMS]
        spaces = frozenset(space for raw in found for space in raw.get("namespaces") or (namespace,))
        everywhere = any("namespaceSelector" in raw for raw in found)
        return tuple(
            PodAffinityTerm(key, UNKNOWN_SELECTOR, spaces, _ALL_NAMESPACES if everywhere else None) for key in keys
        )
    return tuple(_parse_term(raw, namespace) for raw in found)


def _parse_term(raw: Mapping[str, Any], pod_namespace: str) -> PodAffinityTerm:
    selector, spaces = raw.get("labelSelector"), raw.get("namespaceSelector")
    named = raw.get("namespaces") or ()
    # The API server has worked matchLabelKeys and mismatchLabelKeys into the selector when the pod was created.
    return PodAffinityTerm(
        raw["topologyKey"],
        parse_selector(selector),
        frozenset(named if named or spaces is not None else (pod_namespace,)),
        parse_selector(spaces) if spaces else None if spaces is None else _ALL_NAMESPACES,
    )
