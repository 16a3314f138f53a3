"""Label selectors, with the server's own semantics."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from rescheduler.api.scalars import Model

# Bounds are for the schema alone: budgets are read with these models too, and the server lets theirs be longer.


_DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
KEY_PATTERN = rf"^({_DNS_LABEL}(\.{_DNS_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$"
"""A qualified name: what keys of labels and types of conditions look like."""
VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"


class LabelSelectorOperator(StrEnum):
    """Operators of matchExpressions."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class LabelSelectorRequirement(Model):
    """One expression; NotIn and DoesNotExist match where the label is absent."""

    key: str = Field(description="The label's key.", json_schema_extra={"minLength": 1, "maxLength": 316})
    operator: LabelSelectorOperator = Field(description="How the label's value relates to `values`.")
    values: tuple[str, ...] = Field(
        default=(),
        description="Values for In and NotIn; empty for Exists and DoesNotExist.",
        json_schema_extra={"maxItems": 100},
    )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels meet the requirement."""
        match self.operator:
            case LabelSelectorOperator.IN:
                return labels.get(self.key) in self.values
            case LabelSelectorOperator.NOT_IN:
                return labels.get(self.key) not in self.values
            case LabelSelectorOperator.EXISTS:
                return self.key in labels
            case LabelSelectorOperator.DOES_NOT_EXIST:
                return self.key not in labels


class LabelSelector(Model):
    """All of matchLabels and matchExpressions; an empty one matches everything."""

    match_labels: dict[str, str] = Field(
        default_factory=dict, description="Labels that must be there with these values."
    )
    match_expressions: tuple[LabelSelectorRequirement, ...] = Field(
        default=(), description="Expressions that must all hold.", json_schema_extra={"maxItems": 50}
    )

    @property
    def is_empty(self) -> bool:
        """It selects everything."""
        return not self.match_labels and not self.match_expressions

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )

    def query(self) -> str:
        """As the API server takes it in `labelSelector`; in a fixed order."""
        parts = [f"{key}={value}" for key, value in sorted(self.match_labels.items())]
        for requirement in sorted(self.match_expressions, key=lambda r: (r.key, r.operator)):
            values = ",".join(sorted(requirement.values))
            match requirement.operator:
                case LabelSelectorOperator.IN:
                    parts.append(f"{requirement.key} in ({values})")
                case LabelSelectorOperator.NOT_IN:
                    parts.append(f"{requirement.key} notin ({values})")
                case LabelSelectorOperator.EXISTS:
                    parts.append(requirement.key)
                case LabelSelectorOperator.DOES_NOT_EXIST:
                    parts.append(f"!{requirement.key}")
        return ",".join(parts)
