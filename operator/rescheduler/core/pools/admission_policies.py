"""Whether admission puts new pods into their pools: the policies must be served, there, and bound.

A policy without its binding, or a binding without its policy, lets every pod through without a word.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

GROUP_VERSION = "admissionregistration.k8s.io/v1"
MUTATING, VALIDATING = "mutatingadmissionpolicies", "validatingadmissionpolicies"
KINDS = {MUTATING: "MutatingAdmissionPolicy", VALIDATING: "ValidatingAdmissionPolicy"}
BINDINGS = {MUTATING: "mutatingadmissionpolicybindings", VALIDATING: "validatingadmissionpolicybindings"}
POLICY_NAMES: Mapping[str, tuple[str, ...]] = {
    MUTATING: ("pool-namespaces", "pool-pods"),
    VALIDATING: ("pool-namespaces", "pool-nodes", "pool-pods", "pool-labels", "pool-tolerations", "pool-strangers"),
}
"""What the chart installs, by resource; each has a binding of its own name."""
REQUIRED_OBJECTS: tuple[tuple[str, str], ...] = tuple(
    (kind, f"rescheduler-{name}.rescheduler.dev")
    for resource, names in POLICY_NAMES.items()
    for name in names
    for kind in (resource, BINDINGS[resource])
)
"""Resource and name of each policy and binding that the chart installs for pools."""
POLICY_PROPAGATION_DELAY = timedelta(seconds=10)
"""A new policy binds only once every API server has read it."""


@dataclass(frozen=True, slots=True)
class AdmissionState:
    """What is known of it.

    Attributes:
        status: as of a condition: True, False, or Unknown, where nothing is to be changed.
        since: from when it is so.
    """

    status: str = "Unknown"
    reason: str = "NotLooked"
    message: str = "it has not been looked at yet"
    since: datetime | None = None

    @property
    def is_enforced(self) -> bool:
        """Pods are put into their pools."""
        return self.status == "True"

    def is_enforced_everywhere(self, now: datetime) -> bool:
        """They have been, for so long that every API server does it."""
        return self.is_enforced and self.since is not None and now - self.since >= POLICY_PROPAGATION_DELAY


def evaluate(
    served_resources: Collection[str], objects: Mapping[tuple[str, str], Mapping[str, Any] | None]
) -> AdmissionState:
    """From the resources that the API server has, and what is there by resource and name (raw; None: it is not there)."""
    if MUTATING not in served_resources:
        return AdmissionState(
            "False",
            "NotServed",
            f"this API server does not serve {KINDS[MUTATING]} in {GROUP_VERSION} (Kubernetes 1.36 or newer does)",
        )
    missing = []
    for resource, kind in KINDS.items():
        for (where, name), found in sorted(objects.items(), key=lambda row: row[0]):
            if where == resource and found is None:
                missing.append(f"{kind} {name}")
            if where == BINDINGS[resource] and (found is None or found["spec"].get("policyName") != name):
                missing.append(f"{kind}Binding {name}")
    if missing:
        return AdmissionState("False", "PoliciesMissing", f"not there: {', '.join(missing)}; install the chart again")
    return AdmissionState("True", "Enforced", "admission puts new pods of its namespaces onto its nodes")
