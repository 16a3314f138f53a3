"""Label selectors, with the semantics of the API server."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from rescheduler.api.scalars import Model

# Bounds are only in the schema: these models also parse selectors of budgets, which may be longer.

_DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
KEY_PATTERN = rf"^({_DNS_LABEL}(\.{_DNS_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$"
"""A qualified name: the syntax of label keys and condition types."""
VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"


class LabelSelectorOperator(StrEnum):
    """Operators of matchExpressions."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class LabelSelectorRequirement(Model):
    """An expression of a selector. NotIn and DoesNotExist also match if the label is absent."""

    key: str = Field(description="Key of the label.", json_schema_extra={"minLength": 1, "maxLength": 316})
    operator: LabelSelectorOperator = Field(
        description="Relation of the label's value to `values`: In, NotIn, Exists or DoesNotExist."
    )
    values: tuple[str, ...] = Field(
        default=(),
        description="Values for In and NotIn. Empty for Exists and DoesNotExist.",
        json_schema_extra={"maxItems": 100},
    )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels meet the requirement."""
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
    """A label selector: all of matchLabels and matchExpressions must match. An empty selector matches everything."""

    match_labels: dict[str, str] = Field(
        default_factory=dict, description="Labels that the object must have, with their values."
    )
    match_expressions: tuple[LabelSelectorRequirement, ...] = Field(
        default=(), description="Expressions that must all hold.", json_schema_extra={"maxItems": 50}
    )

    @property
    def is_empty(self) -> bool:
        """Whether the selector is empty and so selects everything."""
        return not self.match_labels and not self.match_expressions

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the selector matches an object with these labels."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )

    def query(self) -> str:
        """Return the selector in the form of the query parameter `labelSelector`, in a fixed order."""
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
