"""Admission policies and their bindings: the fields that say whether a policy is in force."""

from dataclasses import dataclass

from rescheduler.core.model import object_schemas
from rescheduler.core.model.raw import RawObject


@dataclass(frozen=True, slots=True)
class AdmissionObject:
    """A policy of admission or a binding.

    Attributes:
        bound_policy: name of the policy that a binding puts in force; empty if absent, as in a policy.
    """

    bound_policy: str = ""


def parse_admission_object(raw: RawObject) -> AdmissionObject:
    """Parse a raw policy or binding of group `admissionregistration.k8s.io`. The name may be absent."""
    return AdmissionObject(object_schemas.sanitize_admission_object(raw)["spec"].get("policyName", ""))
