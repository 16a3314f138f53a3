"""Whether a node is one that a pod may be put on: what the pod asks of it by label, name and toleration.

Not whether there is room: a pod that may not be put on a node is not helped by room on it.
Rules: kubernetes/component-helpers scheduling/corev1 (nodeaffinity, helpers).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rescheduler.api.selectors import LabelSelector
from rescheduler.api.untrusted import INT64
from rescheduler.core.model.nodes import Node, Taint
from rescheduler.core.model.pods import CORDON_TAINT_KEY

_HOSTNAME = "kubernetes.io/hostname"
_HARD_TAINT_EFFECTS = ("NoSchedule", "NoExecute")
_CORDON_TAINT = Taint(CORDON_TAINT_KEY, "", "NoSchedule")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_REQUIRED_AFFINITY = "requiredDuringSchedulingIgnoredDuringExecution"


def may_run_on(spec: Mapping[str, Any], node: Node) -> bool:
    """Whether a pod of this raw spec may run on the node once it is not cordoned."""
    return selects_node(spec, node) and tolerates(spec.get("tolerations") or (), node.taints)


def selects_node(spec: Mapping[str, Any], node: Node) -> bool:
    """Whether the node has the labels and the name that a pod of this raw spec asks for; taints do not count."""
    selector = spec.get("nodeSelector") or {}
    return all(node.labels.get(key) == value for key, value in selector.items()) and _matches_required_affinity(
        spec, node
    )


def referenced_node_labels(spec: Mapping[str, Any]) -> frozenset[str]:
    """Labels of nodes that decide for a pod of this raw spec; `metadata.name` where the name does."""
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(_REQUIRED_AFFINITY) or {}
    asked = [
        expression["key"]
        for term in required.get("nodeSelectorTerms") or ()
        for expression in (*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ()))
    ]
    return frozenset((*(spec.get("nodeSelector") or ()), *asked))


def tolerates_cordon(tolerations: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a pod with these tolerations may be put on a cordoned node."""
    return any(_tolerates_taint(toleration, _CORDON_TAINT) for toleration in tolerations)


def has_anti_affinity_to(raw: Mapping[str, Any], other_pod: Mapping[str, Any]) -> bool:
    """Whether this raw pod asks not to share a node with that one: required anti-affinity by hostname."""
    affinity = (raw["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    meta, space = other_pod["metadata"], raw["metadata"]["namespace"]
    return any(
        term.get("topologyKey") == _HOSTNAME
        and meta["namespace"] in (term.get("namespaces") or [space])
        and _matches_selector(term, meta)
        for term in affinity.get(_REQUIRED_AFFINITY) or ()
        if term.get("labelSelector") is not None
    )


def _matches_selector(term: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
    """Whether a term's selector selects the pod; one that is not known here may."""
    try:
        selector = LabelSelector.model_validate(term.get("labelSelector") or {})
    except ValueError:
        return True
    return selector.matches(meta.get("labels") or {})


def tolerates(tolerations: Sequence[Mapping[str, Any]], taints: Iterable[Taint]) -> bool:
    """Whether the taints keep no pod with these tolerations off; the cordon's own does not count."""
    return all(
        any(_tolerates_taint(toleration, taint) for toleration in tolerations)
        for taint in taints
        if taint.effect in _HARD_TAINT_EFFECTS and taint.key != CORDON_TAINT_KEY
    )


def _tolerates_taint(toleration: Mapping[str, Any], taint: Taint) -> bool:
    if toleration.get("effect", "") not in ("", taint.effect):
        return False
    if toleration.get("key", "") not in ("", taint.key):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.value


def _matches_required_affinity(spec: Mapping[str, Any], node: Node) -> bool:
    """Required node affinity: one of its terms must hold; a term without expressions matches no node."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get(_REQUIRED_AFFINITY)
    if not required:
        return True
    return any(_matches_term(term, node) for term in required.get("nodeSelectorTerms") or ())


def _matches_term(term: Mapping[str, Any], node: Node) -> bool:
    labels, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    return bool(labels or fields) and (
        all(_matches_expression(expression, node.labels) for expression in labels)
        and all(_matches_expression(expression, {"metadata.name": node.name}) for expression in fields)
    )


def _matches_expression(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], tuple(expression.get("values") or ())
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case "Gt" | "Lt" as operator if len(values) == 1:
            return _compares_as_integers(labels.get(key, ""), operator, values[0])
        case _:
            return False


def _compares_as_integers(have: str, operator: str, bound: str) -> bool:
    one, other = _parse_integer(have), _parse_integer(bound)
    if one is None or other is None:
        return False
    return one > other if operator == "Gt" else one < other


def _parse_integer(text: str) -> int | None:
    """A whole number as Go reads one; Python's `int` takes more: spaces, underscores, digits of other scripts."""
    return int(text) if _INTEGER.fullmatch(text) and abs(int(text)) <= INT64 else None
