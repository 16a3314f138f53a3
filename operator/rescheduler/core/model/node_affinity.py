"""Whether a pod may run on a node, by the node's labels, name and taints.

Free capacity is not considered here.
Source: kubernetes/component-helpers scheduling/corev1 (nodeaffinity, helpers).
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rescheduler.api import names
from rescheduler.api.untrusted import INT64
from rescheduler.core.model.nodes import CORDON_TAINT, Node, Taint, matches_taint
from rescheduler.core.model.raw import NAME_FIELD, RawObject, RawPodSpec, RawToleration, required_node_terms

_HARD_TAINT_EFFECTS = ("NoSchedule", "NoExecute")
_TOLERATION_OPERATORS = ("", "Equal", "Exists")
_AFFINITY_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class NodeConstraints:
    """The nodeSelector, the required node affinity and the tolerations of a pod.

    Attributes:
        spec: the constraints in the form of a raw pod spec, which only this package reads.
    """

    spec: RawPodSpec = field(default_factory=dict)

    def allows_node(self, node: Node) -> bool:
        """Whether a pod with these constraints may run on the node if the node is not cordoned."""
        return self.selects_node(node) and self.tolerates(node.taints)

    def selects_node(self, node: Node) -> bool:
        """Whether the node has the labels and the name that the constraints require; taints do not count."""
        selector = self.spec.get("nodeSelector") or {}
        return all(node.labels.get(key) == value for key, value in selector.items()) and (
            matches_node_terms(required_node_terms(self.spec), node)
        )

    def tolerates(self, taints: Iterable[Taint]) -> bool:
        """Whether the tolerations tolerate all hard taints; the taint of a cordon does not count."""
        tolerations = self._tolerations
        return all(
            any(_tolerates_taint(toleration, taint) for toleration in tolerations)
            for taint in taints
            if taint.effect in _HARD_TAINT_EFFECTS and taint.key != CORDON_TAINT.key
        )

    def may_tolerate(self, taints: Collection[Taint]) -> bool:
        """Whether a toleration with an unknown operator is about one of these hard taints: only the scheduler knows."""
        return any(
            toleration.get("key", "") in ("", taint.key) and toleration.get("effect", "") in ("", taint.effect)
            for toleration in self._unknown_tolerations
            for taint in taints
            if taint.effect in _HARD_TAINT_EFFECTS
        )

    @property
    def has_unknown_toleration(self) -> bool:
        """Whether a toleration has an operator that Rescheduler does not know."""
        return bool(self._unknown_tolerations)

    @property
    def _unknown_tolerations(self) -> Sequence[RawToleration]:
        return [t for t in self._tolerations if t.get("operator", "") not in _TOLERATION_OPERATORS]

    @property
    def tolerates_cordon(self) -> bool:
        """Whether the scheduler may place a pod with these constraints on a cordoned node."""
        return any(_tolerates_taint(toleration, CORDON_TAINT) for toleration in self._tolerations)

    @property
    def _tolerations(self) -> Sequence[RawToleration]:
        return self.spec.get("tolerations") or ()

    @property
    def referenced_node_labels(self) -> frozenset[str]:
        """Return the node labels that the constraints select by; `NAME_FIELD` for the name of the node."""
        affinity_keys = [
            expression["key"]
            for term in required_node_terms(self.spec) or ()
            for expression in (*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ()))
        ]
        return frozenset((*(self.spec.get("nodeSelector") or ()), *affinity_keys))

    @property
    def selected_pool(self) -> str | None:
        """Return the pool whose nodes the nodeSelector selects; None if it selects by no pool."""
        return (self.spec.get("nodeSelector") or {}).get(names.NODE_POOL)

    def requires_pool(self, pool: str) -> bool:
        """Whether a pod with these constraints can run only on nodes with the label of this pool.

        If the node loses the label, a kubelet that restarts fails such a pod, and no node takes it again.
        """
        return self.selected_pool == pool or any(
            expression.get("key") == names.NODE_POOL and pool in (expression.get("values") or ())
            for term in required_node_terms(self.spec) or ()
            for expression in term.get("matchExpressions") or ()
        )

    def in_pool(self, pool: str) -> "NodeConstraints":
        """Return the constraints of a new pod in a pool: admission policies add the pool's selector and toleration.

        A running pod may have the selector of its former pool from admission. The template of its owner has not.
        """
        toleration = {"key": names.POOL, "operator": "Equal", "value": pool, "effect": "NoSchedule"}
        return NodeConstraints(
            {
                **self.spec,
                "nodeSelector": {**(self.spec.get("nodeSelector") or {}), names.NODE_POOL: pool},
                "tolerations": [*self._tolerations, toleration],
            }
        )


def parse_node_constraints(spec: RawPodSpec) -> NodeConstraints:
    """Return the node constraints of a raw pod spec, without its other fields."""
    constraints = {name: spec[name] for name in ("nodeSelector", "tolerations") if spec.get(name)}
    affinity = (spec.get("affinity") or {}).get("nodeAffinity")
    return NodeConstraints(constraints | ({"affinity": {"nodeAffinity": affinity}} if affinity else {}))


def _tolerates_taint(toleration: RawToleration, taint: Taint) -> bool:
    key, operator = toleration.get("key", ""), toleration.get("operator", "")
    return matches_taint(key, operator, toleration.get("value", ""), toleration.get("effect", ""), taint)


def has_unknown_operator(terms: Iterable[RawObject] | None) -> bool:
    """Whether one of these raw terms has an operator that Rescheduler does not know."""
    return any(
        expression["operator"] not in _AFFINITY_OPERATORS
        for term in terms or ()
        for expression in (*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ()))
    )


def matches_node_terms(terms: Iterable[RawObject] | None, node: Node) -> bool:
    """Whether one of these raw terms matches the node, or there are no terms; a term without expressions never does."""
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
