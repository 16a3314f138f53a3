"""Selectors match the same objects as those of the API server."""

from typing import Any

import pytest

from rescheduler.api.selectors import LabelSelector


def expression(operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": "tier", "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ({}, {}, True),
        ({}, {"tier": "web"}, True),
        ({"matchLabels": {"tier": "web"}}, {"tier": "web", "x": "y"}, True),
        ({"matchLabels": {"tier": "web"}}, {"tier": "db"}, False),
        ({"matchLabels": {"tier": ""}}, {}, False),
        ({"matchLabels": {"tier": ""}}, {"tier": ""}, True),
        (expression("In", "web", "db"), {"tier": "db"}, True),
        (expression("In", "web"), {"tier": "db"}, False),
        (expression("In", "web"), {}, False),
        (expression("NotIn", "web"), {"tier": "web"}, False),
        (expression("NotIn", "web"), {"tier": "db"}, True),
        (expression("NotIn", "web"), {}, True),
        (expression("Exists"), {"tier": ""}, True),
        (expression("Exists"), {}, False),
        (expression("DoesNotExist"), {"tier": "web"}, False),
        (expression("DoesNotExist"), {}, True),
        ({"matchLabels": {"a": "b"}, **expression("Exists")}, {"a": "b"}, False),
        ({"matchLabels": {"a": "b"}, **expression("Exists")}, {"a": "b", "tier": "web"}, True),
    ],
)
def test_a_selector_matches_as_kubernetes_does(selector: Any, labels: dict[str, str], *, matches: bool) -> None:
    assert LabelSelector.model_validate(selector).matches(labels) is matches


def test_only_a_selector_that_asks_for_nothing_is_empty() -> None:
    assert LabelSelector().is_empty
    assert LabelSelector.model_validate({"matchLabels": {}, "matchExpressions": []}).is_empty
    assert not LabelSelector(match_labels={"a": "b"}).is_empty
    assert not LabelSelector.model_validate(expression("DoesNotExist")).is_empty


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="operator"):
        LabelSelector.model_validate(expression("Gt", "1"))


def test_a_selector_of_a_budget_has_no_bounds() -> None:
    """The API server sets no bounds here. A refusal would hide the budget from the operator."""
    values = [str(number) for number in range(1000)]
    assert LabelSelector.model_validate(expression("In", *values)).matches({"tier": "999"})
