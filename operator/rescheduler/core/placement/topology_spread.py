"""Hard topology spread constraints, and how many pods they let in.

`ScheduleAnyway` forbids nothing. Rules: kube-scheduler, podtopologyspread.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rescheduler.api.selectors import LabelSelector, LabelSelectorOperator, LabelSelectorRequirement
from rescheduler.core.placement.pod_affinity import UNKNOWN_SELECTOR, parse_selector

_HONOR = "Honor"


@dataclass(frozen=True, slots=True)
class SpreadConstraint:
    """One constraint, as its pod means it.

    Attributes:
        key: the node label whose values are the domains.
        skew: how many pods more than in the emptiest domain there may be.
        selector: which pods of its namespace count; None: none.
        least: with fewer domains than this the emptiest counts as empty.
        affine: only nodes that the pod's nodeSelector and node affinity allow are domains.
        tolerated: only nodes whose taints it tolerates are.
    """

    topology_key: str
    max_skew: int
    selector: LabelSelector | None
    min_domains: int = 1
    honors_node_affinity: bool = True
    honors_node_taints: bool = False

    def counts_pod(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod of its namespace with these labels counts among those there."""
        # One that selects everything counts nothing: so does the scheduler.
        return self.selector is not None and not self.selector.is_empty and self.selector.matches(labels)

    def matches_own_pod(self, labels: Mapping[str, str]) -> bool:
        """Whether the pod, with these labels, adds to the skew where it is put."""
        return self.selector is not None and self.selector.matches(labels)


def hard_spread_constraints(spec: Mapping[str, Any], labels: Mapping[str, str]) -> tuple[SpreadConstraint, ...]:
    """The hard constraints of a raw spec, for a pod with these labels."""
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


def _parse_selector(raw: Mapping[str, Any], labels: Mapping[str, str]) -> LabelSelector | None:
    selector = parse_selector(raw.get("labelSelector"))
    if selector is None or selector is UNKNOWN_SELECTOR:
        return selector
    same = tuple(
        LabelSelectorRequirement(key=key, operator=LabelSelectorOperator.IN, values=(labels[key],))
        for key in raw.get("matchLabelKeys") or ()
        if key in labels
    )
    return selector.model_copy(update={"match_expressions": selector.match_expressions + same}) if same else selector


def placeable_pods(
    pods_by_domain: Mapping[str, int], capacity_by_domain: Mapping[str, int], max_skew: int, min_domains: int = 1
) -> int:
    """How many equal pods one constraint lets in, whatever the order in which domains are filled.

    `filled`: pods that count, by domain; `slots`: for how many more there are resources. The emptiest domain that is
    full for good holds all others back.
    """
    floor = (
        0
        if len(pods_by_domain) < min_domains
        else min((n + capacity_by_domain.get(domain, 0) for domain, n in pods_by_domain.items()), default=None)
    )
    if floor is None:
        return sum(capacity_by_domain.values())
    return sum(
        min(count, max(0, floor + max_skew - pods_by_domain.get(domain, 0)))
        for domain, count in capacity_by_domain.items()
    )
