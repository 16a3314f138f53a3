"""Patches of a node, and that a restore removes exactly their changes."""

from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api import names
from rescheduler.api.drains import NodeRecord, Phase, RequestReason
from rescheduler.core.drain import node_patches, status
from rescheduler.core.drain.node_patches import additions, cordon_patch, cordon_record, restore_patch
from rescheduler.core.failure.fencing import OUT_OF_SERVICE_TAINT
from rescheduler.core.model import nodes as model_nodes
from rescheduler.core.model.field_managers import FieldManagers, parse_field_managers
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.raw import RawObject
from unit.builders import NOW

NODE = Node("n", "u", "7")


def test_a_record_says_what_will_be_ours_before_it_is() -> None:
    adds = additions(NODE, {RequestReason.MAINTENANCE}, exclude_from_load_balancers=True)
    ours = cordon_record(NODE, None, adds)
    assert ours.cordoned_by_us
    assert cordon_patch(NODE, ours) == {
        "spec": {"unschedulable": True},
        "metadata": {
            "labels": {names.EXCLUDE_FROM_LOAD_BALANCERS: "true"},
            "annotations": {names.SCALE_DOWN_DISABLED: "true"},
            "resourceVersion": "7",
            "uid": "u",
        },
    }


def test_what_was_there_before_is_not_ours() -> None:
    before = Node("n", "u", "7", unschedulable=True, annotations={names.SCALE_DOWN_DISABLED: "false"})
    ours = cordon_record(
        before, None, additions(before, {RequestReason.MAINTENANCE}, exclude_from_load_balancers=False)
    )
    assert not ours.cordoned_by_us
    assert ours.added_annotations == {}
    assert cordon_patch(before, ours) is None
    assert restore_patch(before, ours, {}) is None


def test_record_survives_a_restart_only_for_the_same_node() -> None:
    held = Node("n", "u", "8", unschedulable=True)
    kept = NodeRecord(uid="u", cordoned_by_us=True)
    nothing = additions(held, set(), exclude_from_load_balancers=False)
    assert cordon_record(held, kept, nothing).cordoned_by_us
    assert not cordon_record(held, NodeRecord(uid="other", cordoned_by_us=True), nothing).cordoned_by_us
    assert restore_patch(held, NodeRecord(uid="other", cordoned_by_us=True), {}) is None


def test_what_others_changed_since_is_left_alone() -> None:
    ours = NodeRecord(uid="u", cordoned_by_us=True, added_annotations={"a": "1", "b": "2"})
    now = Node("n", "u", "9", unschedulable=False, annotations={"a": "1", "b": "changed"})
    assert restore_patch(now, ours, {}) == {
        "metadata": {"annotations": {"a": None}, "resourceVersion": "9", "uid": "u"}
    }


@given(
    cordoned=st.booleans(),
    labels=st.dictionaries(st.sampled_from(["x", names.EXCLUDE_FROM_LOAD_BALANCERS]), st.sampled_from(["true", "no"])),
    annotations=st.dictionaries(st.sampled_from(["y", names.SCALE_DOWN_DISABLED]), st.sampled_from(["true", "no"])),
)
def test_holding_and_restoring_leaves_the_node_as_it_was(
    cordoned: bool, labels: dict[str, str], annotations: dict[str, str]
) -> None:
    before = Node("n", "u", "1", unschedulable=cordoned, labels=labels, annotations=annotations)
    ours = cordon_record(before, None, additions(before, {RequestReason.MAINTENANCE}, exclude_from_load_balancers=True))
    held = applied(before, cordon_patch(before, ours))
    assert held.unschedulable
    after = applied(held, restore_patch(held, ours, {}))
    assert (after.unschedulable, after.labels, after.annotations) == (cordoned, labels, annotations)


def managed(*owners: tuple[str, RawObject]) -> FieldManagers:
    raw = {"metadata": {"managedFields": [{"manager": name, "fieldsV1": fields} for name, fields in owners]}}
    return parse_field_managers(raw)


def test_a_lost_record_is_what_only_the_operator_wrote() -> None:
    held = Node("n", "u", "7", unschedulable=True, annotations={names.SCALE_DOWN_DISABLED: "true"})
    cordon: RawObject = {"f:spec": {"f:unschedulable": {}}}
    annotation: RawObject = {"f:metadata": {"f:annotations": {f"f:{names.SCALE_DOWN_DISABLED}": {}}}}
    ours = node_patches.lost_record(held, managed(("rescheduler", {**cordon, **annotation})))
    assert node_patches.cleanup_patch(held, ours) == {
        "spec": {"unschedulable": None},
        "metadata": {"annotations": {names.SCALE_DOWN_DISABLED: None}, "resourceVersion": "7", "uid": "u"},
    }
    for others in (
        managed(),
        managed(("kubectl-cordon", cordon), ("kubectl-annotate", annotation)),
        managed(("rescheduler", {**cordon, **annotation}), ("argocd-controller", {**cordon, **annotation})),
    ):
        assert node_patches.cleanup_patch(held, node_patches.lost_record(held, others)) is None


def test_a_cleanup_removes_the_cancelled_requests_together_with_a_lost_record() -> None:
    annotations = {names.CANCELLED: "{}", names.SCALE_DOWN_DISABLED: "true"}
    waiting = model_nodes.Taint(names.WAITING_TAINT_KEY, "", "PreferNoSchedule")
    held = Node("n", "u", "7", annotations=annotations, taints=(waiting,))
    assert node_patches.cleanup_patch(held) == {
        "spec": {"taints": None},
        "metadata": {"annotations": {names.CANCELLED: None}, "resourceVersion": "7", "uid": "u"},
    }
    ours = NodeRecord(uid="u", added_annotations={names.SCALE_DOWN_DISABLED: "true"})
    patch = node_patches.cleanup_patch(held, ours)
    assert patch is not None
    assert patch["metadata"]["annotations"] == dict.fromkeys(annotations)


def applied(node: Node, patch: RawObject | None) -> Node:
    """Return the node after a merge patch."""
    body: dict[str, dict[str, object]] = patch or {}  # type: ignore[assignment]

    def merged(now: object, key: str) -> dict[str, str]:
        changes: dict[str, str | None] = body.get("metadata", {}).get(key, {})  # type: ignore[assignment]
        both: dict[str, str | None] = {**now, **changes}  # type: ignore[dict-item]
        return {k: v for k, v in both.items() if v is not None}

    unschedulable = bool(body.get("spec", {}).get("unschedulable", node.unschedulable))
    return Node(
        "n",
        "u",
        "2",
        unschedulable=unschedulable,
        labels=merged(node.labels, "labels"),
        annotations=merged(node.annotations, "annotations"),
    )


def test_a_node_that_waits_gets_a_taint_and_loses_it_again() -> None:
    others = {"key": "other", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}
    raw = {"metadata": {"name": "n", "uid": "u", "resourceVersion": "7"}, "spec": {"taints": [others]}}
    before = model_nodes.parse_node(raw)
    waiting = node_patches.waiting_record(before, None)
    assert not waiting.cordoned_by_us
    patch = node_patches.waiting_taint_patch(before, waiting)
    ours = {"key": "rescheduler.dev/drain", "effect": "PreferNoSchedule"}
    assert patch is not None
    assert patch["spec"] == {"taints": [others, ours]}
    after = model_nodes.parse_node({**raw, "spec": {"taints": [others, ours]}})
    assert node_patches.waiting_taint_patch(after, waiting) is None
    undo = node_patches.restore_patch(after, waiting, {})
    assert undo is not None
    assert undo["spec"] == {"taints": [others]}


def test_a_taint_of_somebody_else_under_our_key_stays() -> None:
    theirs = {"key": "rescheduler.dev/drain", "effect": "NoSchedule"}
    raw = {"metadata": {"name": "n", "uid": "u", "resourceVersion": "7"}, "spec": {"taints": [theirs]}}
    waiting = node_patches.waiting_record(model_nodes.parse_node(raw), None)
    assert waiting.added_taints == ()
    assert node_patches.restore_patch(model_nodes.parse_node(raw), waiting, {}) is None


OOS = {"key": "node.kubernetes.io/out-of-service", "effect": "NoSchedule"}
FOREIGN = [
    {"key": "other", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
    {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"},
]


def tainted(*taints: dict[str, str], boot: str = "b") -> Node:
    meta = {"name": "n", "uid": "u", "resourceVersion": "7"}
    return model_nodes.parse_node(
        {"metadata": meta, "spec": {"taints": [*taints]}, "status": {"nodeInfo": {"bootID": boot}}}
    )


def test_the_out_of_service_taint_is_recorded_with_the_boot_that_it_is_for() -> None:
    kept = NodeRecord(uid="u", boot_id="before", cordoned_by_us=True, added_annotations={"a": "1"})
    ours = node_patches.out_of_service_record(tainted(), kept)
    assert ours == kept.model_copy(update={"boot_id": "b", "added_taints": (OUT_OF_SERVICE_TAINT,)})
    assert node_patches.out_of_service_record(tainted(), ours) == ours
    assert node_patches.in_service_record(ours).added_taints == ()
    assert (
        cordon_record(tainted(boot="c"), ours, additions(tainted(), set(), exclude_from_load_balancers=False)).boot_id
        == "b"
    )


def test_out_of_service_taint_leaves_the_other_taints_alone() -> None:
    patch = node_patches.out_of_service_patch(tainted(FOREIGN[0]))
    assert patch == {"spec": {"taints": [FOREIGN[0], OOS]}, "metadata": {"resourceVersion": "7", "uid": "u"}}
    undo = node_patches.in_service_patch(tainted(*FOREIGN, OOS))
    assert undo == {"spec": {"taints": FOREIGN}, "metadata": {"resourceVersion": "7", "uid": "u"}}


def test_waiting_taint_of_somebody_else_stays_and_none_is_added() -> None:
    assert node_patches.out_of_service_patch(tainted(*FOREIGN)) is None
    assert node_patches.in_service_patch(tainted(*FOREIGN)) is None
    assert (
        node_patches.restore_patch(tainted(*FOREIGN), NodeRecord(uid="u", added_taints=(OUT_OF_SERVICE_TAINT,)), {})
        is None
    )


def test_a_drain_is_told_from_another_controllers_by_its_phase() -> None:
    """Kubernetes owns the type of the condition."""

    def held(reason: str) -> Node:
        return Node("n", "u", conditions=(model_nodes.NodeCondition(names.DRAIN_IN_PROGRESS, "True", reason),))

    assert node_patches.has_drain_condition(held("Draining"))
    assert not node_patches.has_drain_condition(held("KubeletShutdown"))
    assert not node_patches.has_drain_condition(NODE)


def test_conditions_of_another_component_are_not_changed_or_removed() -> None:
    theirs = tuple(model_nodes.NodeCondition(type_, "True", "KubeletShutdown") for type_ in names.NODE_CONDITIONS)
    node = Node("n", "u", conditions=theirs)
    wanted = status.node_conditions(Phase.DRAINING, NOW, [RequestReason.MAINTENANCE])
    assert node_patches.conditions_patch(wanted, node, NOW) is None
    assert node_patches.conditions_patch({}, node, NOW) is None
    ours = Node("n", "u", conditions=tuple(model_nodes.NodeCondition(t, s, r) for t, (s, r, _) in wanted.items()))
    patch = node_patches.conditions_patch({}, ours, NOW)
    assert patch is not None
    assert {(entry["type"], entry["$patch"]) for entry in patch["status"]["conditions"]} == {
        (type_, "delete") for type_ in names.NODE_CONDITIONS
    }
