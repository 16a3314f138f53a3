"""Hard topology spread constraints, and how many pods they let in.

`ScheduleAnyway` forbids nothing. Rules: kube-scheduler, podtopologyspread.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rescheduler.api.selectors import LabelSelector, Operator, Requirement
from rescheduler.core.placement.pod_affinity import UNKNOWN, read

_HONOR = "Honor"


@dataclass(frozen=True, slots=True)
class Spread:
    """One constraint, as its pod means it.

    Attributes:
        key: the node label whose values are the domains.
        skew: how many pods more than in the emptiest domain there may be.
        selector: which pods of its namespace count; None: none.
        least: with fewer domains than this the emptiest counts as empty.
        affine: only nodes that the pod's nodeSelector and node affinity allow are domains.
        tolerated: only nodes whose taints it tolerates are.
    """

    key: str
    skew: int
    selector: LabelSelector | None
    least: int = 1
    affine: bool = True
    tolerated: bool = False

    def counts(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod of its namespace with these labels counts among those there."""
        # One that selects everything counts nothing: so does the scheduler.
        return self.selector is not None and not self.selector.is_empty and self.selector.matches(labels)

    def counts_itself(self, labels: Mapping[str, str]) -> bool:
        """Whether the pod, with these labels, adds to the skew where it is put."""
        return self.selector is not None and self.selector.matches(labels)


def spreads(spec: Mapping[str, Any], labels: Mapping[str, str]) -> tuple[Spread, ...]:
    """The hard constraints of a raw spec, for a pod with these labels."""
    return tuple(
        Spread(
            key=raw["topologyKey"],
            skew=raw["maxSkew"],
            selector=_selector(raw, labels),
            least=raw.get("minDomains") or 1,
            affine=raw.get("nodeAffinityPolicy", _HONOR) == _HONOR,
            tolerated=raw.get("nodeTaintsPolicy") == _HONOR,
        )
        for raw in spec.get("topologySpreadConstraints") or ()
        if raw.get("whenUnsatisfiable") == "DoNotSchedule"
    )


def _selector(raw: Mapping[str, Any], labels: Mapping[str, str]) -> LabelSelector | None:
    selector = read(raw.get("labelSelector"))
    if selector is None or selector is UNKNOWN:
        return selector
    same = tuple(
        Requirement(key=key, operator=Operator.IN, values=(labels[key],))
        for key in raw.get("matchLabelKeys") or ()
        if key in labels
    )
    return selector.model_copy(update={"match_expressions": selector.match_expressions + same}) if same else selector


def room(filled: Mapping[str, int], slots: Mapping[str, int], skew: int, least: int = 1) -> int:
    """How many equal pods one constraint lets in, whatever the order in which domains are filled.

    `filled`: pods that count, by domain; `slots`: for how many more there are resources. The emptiest domain that is
    full for good holds all others back.
    """
    floor = 0 if len(filled) < least else min((n + slots.get(domain, 0) for domain, n in filled.items()), default=None)
    if floor is None:
        return sum(slots.values())
    return sum(min(count, max(0, floor + skew - filled.get(domain, 0))) for domain, count in slots.items())
