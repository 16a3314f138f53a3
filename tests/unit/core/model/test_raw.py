"""Parts of raw objects that several modules read."""

from typing import Any

from rescheduler.core.model.raw import REQUIRED_AFFINITY, claim_names, controller_reference, required_node_terms


def test_claim_names_come_from_claim_volumes_only() -> None:
    spec = {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "e", "emptyDir": {}}]}
    assert claim_names(spec) == ("data",)


def test_controller_reference_is_the_one_with_the_flag() -> None:
    owner, controller = {"uid": "1"}, {"uid": "2", "controller": True}
    assert controller_reference({"ownerReferences": [owner, controller]}) == controller
    assert controller_reference({"ownerReferences": [owner]}) is None


def test_required_node_terms_are_none_without_required_affinity() -> None:
    assert required_node_terms({"affinity": {"nodeAffinity": {}}}) is None
    required: dict[str, Any] = {"nodeAffinity": {REQUIRED_AFFINITY: {"nodeSelectorTerms": [{"matchExpressions": []}]}}}
    assert required_node_terms({"affinity": required}) == [{"matchExpressions": []}]
