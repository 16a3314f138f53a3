"""Hard topology spread constraints, and the number of pods that they allow.

`ScheduleAnyway` only changes scores, so it is not read. Source: kube-scheduler, podtopologyspread.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rescheduler.api.selectors import LabelSelector, LabelSelectorOperator, LabelSelectorRequirement
from rescheduler.core.model.raw import RawObject, RawPodSpec
from rescheduler.core.placement.pod_affinity import UNKNOWN_SELECTOR, parse_selector

_HONOR = "Honor"


@dataclass(frozen=True, slots=True)
class SpreadConstraint:
    """Hard topology spread constraint of a pod.

    Attributes:
        topology_key: the node label whose values are the topology domains.
        max_skew: how many pods a domain may have more than the domain with the fewest pods.
        selector: selects the pods of the namespace that count; None selects no pod.
        min_domains: with fewer domains than this, the fewest pods of a domain count as 0.
        honors_node_affinity: whether only nodes that the pod's nodeSelector and node affinity allow count.
        honors_node_taints: whether only nodes with taints that the pod tolerates count.
    """

    topology_key: str
    max_skew: int
    selector: LabelSelector | None
    min_domains: int = 1
    honors_node_affinity: bool = True
    honors_node_taints: bool = False

    def counts_pod(self, labels: Mapping[str, str]) -> bool:
        """Whether a running pod of the namespace with these labels counts."""
        # In the scheduler, a selector that selects everything counts no pod.
        return self.selector is not None and not self.selector.is_empty and self.selector.matches(labels)

    def matches_own_pod(self, labels: Mapping[str, str]) -> bool:
        """Whether the pod itself, with these labels, adds to the skew of its domain."""
        return self.selector is not None and self.selector.matches(labels)


def hard_spread_constraints(spec: RawPodSpec, labels: Mapping[str, str]) -> tuple[SpreadConstraint, ...]:
    """Parse the hard constraints of a raw pod spec, for a pod with these labels."""
    return tuple(
        SpreadConstraint(
            topology_key=raw["topologyKey"],
            max_skew=raw["maxSkew"],
            selector=_parse_selector(raw, labels),
            min_domains=raw.get("minDomains") or 1,
            honors_node_affinity=raw.get("nodeAffinityPolicy", _HONOR) == _HONOR,
            honors_node_taints=raw.get("nodeTaintsPolicy") == _HONOR,
        )
        for raw in spec.get("topologySpreadConstraints") or ()
        if raw.get("whenUnsatisfiable") == "DoNotSchedule"
    )


def _parse_selector(raw: RawObject, labels: Mapping[str, str]) -> LabelSelector | None:
    selector = parse_selector(raw.get("labelSelector"))
    if selector is None or selector is UNKNOWN_SELECTOR:
        return selector
    own_values = tuple(
        LabelSelectorRequirement(key=key, operator=LabelSelectorOperator.IN, values=(labels[key],))
        for key in raw.get("matchLabelKeys") or ()
        if key in labels
    )
    if not own_values:
        return selector
    return selector.model_copy(update={"match_expressions": selector.match_expressions + own_values})


def placeable_pods(
    pods_by_domain: Mapping[str, int], capacity_by_domain: Mapping[str, int], max_skew: int, min_domains: int = 1
) -> int:
    """Return how many equal pods a constraint allows, whatever the order in which domains fill.

    `pods_by_domain`: running pods that count. `capacity_by_domain`: number of further pods with enough resources.
    The domain with the fewest pods at full capacity limits all other domains.
    """
    fewest = (
        0
        if len(pods_by_domain) < min_domains
        else min((n + capacity_by_domain.get(domain, 0) for domain, n in pods_by_domain.items()), default=None)
    )
    if fewest is None:
        return sum(capacity_by_domain.values())
    return sum(
        min(count, max(0, fewest + max_skew - pods_by_domain.get(domain, 0)))
        for domain, count in capacity_by_domain.items()
    )
