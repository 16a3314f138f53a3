"""Required pod affinity and anti-affinity: which pods must, or must not, share a place.

Preferred terms are the scheduler's to weigh: they forbid nothing. Rules: kube-scheduler, interpodaffinity.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rescheduler.api.selectors import LabelSelector

Labels = Mapping[str, str]
_EVERYWHERE = LabelSelector()
MOST_TERMS = 100
"""A pod with more has them to keep plans busy: each costs a look at each node."""
UNKNOWN = LabelSelector()
"""Stands for a selector that this version cannot read: it may select every pod."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term, as its pod means it.

    Attributes:
        key: the node label whose values are the places.
        selector: which pods; None selects none.
        namespaces: whose pods, by name; `spaces`: and by the labels of the namespace, None selects none.
    """

    key: str
    selector: LabelSelector | None
    namespaces: frozenset[str]
    spaces: LabelSelector | None = None

    def selects(self, namespace: str, labels: Labels, spaces: Mapping[str, Labels]) -> bool:
        """Whether a pod with these labels is meant; `spaces`: labels of namespaces, by name."""
        if self.selector is None or not self.selector.matches(labels):
            return False
        if namespace in self.namespaces:
            return True
        return self.spaces is not None and self.spaces.matches(spaces.get(namespace, {}))


def read(raw: Mapping[str, Any] | None) -> LabelSelector | None:
    """Return a raw selector; None selects nothing, UNKNOWN stands for what cannot be read."""
    if raw is None:
        return None
    try:
        return LabelSelector.model_validate(raw)
    except ValueError:
        return UNKNOWN


def terms(spec: Mapping[str, Any], namespace: str, kind: str) -> tuple[Term, ...]:
    """The required terms of a raw spec; `kind`: podAffinity or podAntiAffinity.

    Of more than MOST_TERMS only places and namespaces are kept: any pod of these namespaces may be meant.
    """
    found = ((spec.get("affinity") or {}).get(kind) or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    if len(found) > MOST_TERMS:
        keys = sorted({raw["topologyKey"] for raw in found})[:MOST_TERMS]
        spaces = frozenset(space for raw in found for space in raw.get("namespaces") or (namespace,))
        everywhere = any("namespaceSelector" in raw for raw in found)
        return tuple(Term(key, UNKNOWN, spaces, _EVERYWHERE if everywhere else None) for key in keys)
    return tuple(_term(raw, namespace) for raw in found)


def _term(raw: Mapping[str, Any], own: str) -> Term:
    selector, spaces = raw.get("labelSelector"), raw.get("namespaceSelector")
    named = raw.get("namespaces") or ()
    # The API server has worked matchLabelKeys and mismatchLabelKeys into the selector when the pod was created.
    return Term(
        raw["topologyKey"],
        read(selector),
        frozenset(named if named or spaces is not None else (own,)),
        read(spaces) if spaces else None if spaces is None else _EVERYWHERE,
    )
