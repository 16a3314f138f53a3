"""Whether a pod may run on a node, by the node's labels, name and taints.

Free capacity is not considered here.
Source: kubernetes/component-helpers scheduling/corev1 (nodeaffinity, helpers).
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from rescheduler.api import names
from rescheduler.api.selectors import LabelSelector
from rescheduler.api.untrusted import INT64
from rescheduler.core.model.nodes import CORDON_TAINT, Node, Taint, matches_taint
from rescheduler.core.model.raw import (
    HOSTNAME_LABEL,
    NAME_FIELD,
    REQUIRED_AFFINITY,
    RawMetadata,
    RawObject,
    RawPod,
    RawPodSpec,
    RawToleration,
    required_node_terms,
)

_HARD_TAINT_EFFECTS = ("NoSchedule", "NoExecute")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")


def scheduling_constraints(spec: RawPodSpec) -> RawPodSpec:
    """Return the parts of a raw pod spec that select nodes: nodeSelector, tolerations and node affinity, if present."""
    constraints = {name: spec[name] for name in ("nodeSelector", "tolerations") if spec.get(name)}
    affinity = (spec.get("affinity") or {}).get("nodeAffinity")
    return constraints | ({"affinity": {"nodeAffinity": affinity}} if affinity else {})


def constraints_in_pool(constraints: RawPodSpec, pool: str) -> RawPodSpec:
    """Return the constraints of a new pod in a pool: admission policies add the pool's selector and toleration.

    A running pod may have the selector of its former pool from admission. The template of its owner has not.
    """
    toleration = {"key": names.POOL, "operator": "Equal", "value": pool, "effect": "NoSchedule"}
    return {
        **constraints,
        "nodeSelector": {**(constraints.get("nodeSelector") or {}), names.NODE_POOL: pool},
        "tolerations": [*(constraints.get("tolerations") or ()), toleration],
    }


def may_run_on(spec: RawPodSpec, node: Node) -> bool:
    """Whether a pod of this raw spec may run on the node if the node is not cordoned."""
    return selects_node(spec, node) and tolerates(spec.get("tolerations") or (), node.taints)


def selects_node(spec: RawPodSpec, node: Node) -> bool:
    """Whether the node has the labels and the name that this raw pod spec requires; taints do not count."""
    selector = spec.get("nodeSelector") or {}
    return all(node.labels.get(key) == value for key, value in selector.items()) and _matches_required_affinity(
        spec, node
    )


def referenced_node_labels(spec: RawPodSpec) -> frozenset[str]:
    """Return the node labels that this raw pod spec selects by; `metadata.name` for the name of the node."""
    affinity_keys = [
        expression["key"]
        for term in required_node_terms(spec) or ()
        for expression in (*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ()))
    ]
    return frozenset((*(spec.get("nodeSelector") or ()), *affinity_keys))


def tolerates_cordon(tolerations: Sequence[RawToleration]) -> bool:
    """Whether the scheduler may place a pod with these raw tolerations on a cordoned node."""
    return any(_tolerates_taint(toleration, CORDON_TAINT) for toleration in tolerations)


def has_anti_affinity_to(raw: RawPod, other_pod: RawPod) -> bool:
    """Whether required anti-affinity by hostname keeps this raw pod off the node of the other raw pod."""
    affinity = (raw["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    meta, space = other_pod["metadata"], raw["metadata"]["namespace"]
    return any(
        term.get("topologyKey") == HOSTNAME_LABEL
        and meta["namespace"] in (term.get("namespaces") or [space])
        and _matches_selector(term, meta)
        for term in affinity.get(REQUIRED_AFFINITY) or ()
        if term.get("labelSelector") is not None
    )


def _matches_selector(term: RawObject, meta: RawMetadata) -> bool:
    """Whether the selector of an affinity term may select the pod; an unknown operator counts as yes."""
    try:
        selector = LabelSelector.model_validate(term.get("labelSelector") or {})
    except ValueError:
        return True
    return selector.matches(meta.get("labels") or {})


def tolerates(tolerations: Sequence[RawToleration], taints: Iterable[Taint]) -> bool:
    """Whether these raw tolerations tolerate all hard taints; the taint of a cordon does not count."""
    return all(
        any(_tolerates_taint(toleration, taint) for toleration in tolerations)
        for taint in taints
        if taint.effect in _HARD_TAINT_EFFECTS and taint.key != CORDON_TAINT.key
    )


def _tolerates_taint(toleration: RawToleration, taint: Taint) -> bool:
    key, operator = toleration.get("key", ""), toleration.get("operator", "")
    return matches_taint(key, operator, toleration.get("value", ""), toleration.get("effect", ""), taint)


def _matches_required_affinity(spec: RawPodSpec, node: Node) -> bool:
    """Whether a term of the required node affinity matches; a term without expressions matches no node."""
    terms = required_node_terms(spec)
    return terms is None or any(_matches_term(term, node) for term in terms)


def _matches_term(term: RawObject, node: Node) -> bool:
    labels, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    return bool(labels or fields) and (
        all(_matches_expression(expression, node.labels) for expression in labels)
        and all(_matches_expression(expression, {NAME_FIELD: node.name}) for expression in fields)
    )


def _matches_expression(expression: RawObject, labels: Mapping[str, str]) -> bool:
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


def _compares_as_integers(label: str, operator: str, limit: str) -> bool:
    value, bound = _parse_integer(label), _parse_integer(limit)
    if value is None or bound is None:
        return False
    return value > bound if operator == "Gt" else value < bound


def _parse_integer(text: str) -> int | None:
    """Parse an integer as Go does: Python's `int` also accepts spaces, underscores and non-ASCII digits."""
    return int(text) if _INTEGER.fullmatch(text) and abs(int(text)) <= INT64 else None
