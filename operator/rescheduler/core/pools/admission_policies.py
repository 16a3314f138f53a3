"""Decide whether admission puts new pods into their pools: all policies are served, exist and are bound.

The API server silently admits every pod if a policy or its binding is missing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from rescheduler.core.model.admission import AdmissionObject
from rescheduler.core.pools import messages

GROUP_VERSION = "admissionregistration.k8s.io/v1"
MUTATING, VALIDATING = "mutatingadmissionpolicies", "validatingadmissionpolicies"
KINDS = {MUTATING: "MutatingAdmissionPolicy", VALIDATING: "ValidatingAdmissionPolicy"}
BINDINGS = {MUTATING: "mutatingadmissionpolicybindings", VALIDATING: "validatingadmissionpolicybindings"}
POLICY_NAMES: Mapping[str, tuple[str, ...]] = {
    MUTATING: ("pool-namespaces", "pool-pods"),
    VALIDATING: ("pool-namespaces", "pool-nodes", "pool-pods", "pool-labels", "pool-tolerations", "pool-strangers"),
}
"""The policies of the chart, by resource; the binding of a policy has the same name."""
REQUIRED_OBJECTS: tuple[tuple[str, str], ...] = tuple(
    (kind, f"rescheduler-{name}.rescheduler.dev")
    for resource, names in POLICY_NAMES.items()
    for name in names
    for kind in (resource, BINDINGS[resource])
)
"""Resource and name of each policy and binding that the chart installs for pools."""
_POD_POLICY = "rescheduler-pool-pods.rescheduler.dev"
"""Refuses pods without the fields that the mutating policy of this name sets."""
POLICY_PROPAGATION_DELAY = timedelta(seconds=10)
"""The time until every API server has read a new policy."""


@dataclass(frozen=True, slots=True)
class AdmissionState:
    """The last result of the check of admission.

    Attributes:
        status: as of a condition: True, False, or Unknown, with which nothing may be changed.
        since: when the status began; None before the first check.
    """

    status: str = "Unknown"
    reason: str = "NotLooked"
    message: str = messages.NOT_CHECKED
    since: datetime | None = None

    @property
    def is_enforced(self) -> bool:
        """Whether admission puts new pods into their pools."""
        return self.status == "True"

    def is_enforced_everywhere(self, now: datetime) -> bool:
        """Whether every API server has enforced the policies by now."""
        return self.is_enforced and self.since is not None and now - self.since >= POLICY_PROPAGATION_DELAY


def evaluate(
    served_resources: Collection[str], objects: Mapping[tuple[str, str], AdmissionObject | None]
) -> AdmissionState:
    """Return the state by the resources that the API server serves, and the objects by resource and name.

    An object of None does not exist.
    """
    if MUTATING not in served_resources:
        found = objects.get((BINDINGS[VALIDATING], _POD_POLICY))
        refusing = [f"{KINDS[VALIDATING]}Binding {_POD_POLICY}"] if found else []
        message = messages.policies_not_served(KINDS[MUTATING], GROUP_VERSION, refusing)
        return AdmissionState("False", "NotServed", message)
    missing = []
    for resource, kind in KINDS.items():
        for (object_resource, name), found in sorted(objects.items(), key=lambda row: row[0]):
            if object_resource == resource and found is None:
                missing.append(f"{kind} {name}")
            if object_resource == BINDINGS[resource] and (found is None or found.bound_policy != name):
                missing.append(f"{kind}Binding {name}")
    if missing:
        return AdmissionState("False", "PoliciesMissing", messages.policies_missing(missing))
    return AdmissionState("True", "Enforced", messages.ENFORCED)
