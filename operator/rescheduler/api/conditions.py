"""The conditions of all kinds, in the form of metav1.Condition."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import Field

from rescheduler.api.scalars import Model, Time

ConditionState = tuple[str, str, str]
"""Status, reason and message of a condition."""


class Condition(Model):
    """A condition: one aspect of the state of an object."""

    type: str = Field(description="Type of the condition.", json_schema_extra={"maxLength": 316})
    status: str = Field(description="True, False or Unknown.", json_schema_extra={"enum": ["True", "False", "Unknown"]})
    reason: str = Field(
        default="", description="Reason for the status, as one CamelCase word.", json_schema_extra={"maxLength": 1024}
    )
    message: str = Field(
        default="", description="Human-readable explanation of the reason.", json_schema_extra={"maxLength": 32768}
    )
    last_transition_time: Time = Field(description="When the status last changed.")
    observed_generation: int | None = Field(
        default=None, description="Generation of the object that the condition describes."
    )


CRDS_OUTDATED = "CRDsOutdated"
"""Condition of NodeDrains and NamespacePools while CRDs are older than the operator."""


def with_crds_outdated(
    before: Iterable[Condition], message: str | None, generation: int | None, now: datetime
) -> tuple[Condition, ...]:
    """Return the conditions with `CRDsOutdated`, or without it if the message is empty; None: it is not known."""
    if message:
        return merge(before, {CRDS_OUTDATED: ("True", "FieldsMissing", message)}, generation, now)
    return tuple(c for c in before if c.type != CRDS_OUTDATED or message is None)


def merge(
    before: Iterable[Condition], states: Mapping[str, ConditionState], generation: int | None, now: datetime
) -> tuple[Condition, ...]:
    """Return the conditions with these states by type; other conditions stay as they are.

    A condition keeps its transition time while its status is the same.
    """
    conditions = {condition.type: condition for condition in before}
    for type_, (status, reason, message) in states.items():
        previous = conditions.get(type_)
        conditions[type_] = Condition(
            type=type_,
            status=status,
            reason=reason,
            message=message,
            observed_generation=generation,
            last_transition_time=previous.last_transition_time if previous and previous.status == status else now,
        )
    return tuple(conditions.values())
