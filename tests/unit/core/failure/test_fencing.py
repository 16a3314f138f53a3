"""Decide what proves that a boot is dead, and when the out-of-service taint is set and removed."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api import names
from rescheduler.api.drains import NodeRecord
from rescheduler.core.failure.fencing import (
    OUT_OF_SERVICE_TAINT,
    BootHistory,
    FencingEvidence,
    FencingState,
    Proof,
    ProofMethod,
    TaintAction,
    fenced_condition,
    find_proof,
    must_keep_taint,
    observe_boot,
    parse_attestation,
    proof_hint,
    returned_without_reboot,
    taint_action,
)
from rescheduler.core.model.nodes import Node, NodeCondition, Taint
from unit.builders import node

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
FAILED = NOW - timedelta(minutes=2)
SHUTDOWN = Taint(names.SHUTDOWN_TAINT_KEY, "", "NoSchedule")
FOREIGN = Taint(names.OUT_OF_SERVICE_TAINT_KEY, "nodeshutdown", "NoExecute")
MINE = Taint(OUT_OF_SERVICE_TAINT.key, OUT_OF_SERVICE_TAINT.value, OUT_OF_SERVICE_TAINT.effect)
SAID = {"nodeUID": "u", "bootID": "b", "method": "fence_ipmilan", "time": "2026-01-01T11:59:00Z"}


def fenced_node(ready: str = "Unknown", *taints: Taint, said: object = None, uid: str = "u", boot: str = "b") -> Node:
    """Return a node whose kubelet is silent since `FAILED`; `said`: its annotation of a fencing agent."""
    annotations = {} if said is None else {names.FENCED: said if isinstance(said, str) else json.dumps(said)}
    conditions = (NodeCondition("Ready", ready, last_transition=FAILED),)
    return node(
        uid=uid, resource_version="7", boot_id=boot, taints=taints, annotations=annotations, conditions=conditions
    )


def seen(*nodes: Node) -> BootHistory | None:
    """Return the history after these observations of the node."""
    return reduce(observe_boot, nodes, None)


def look(here: Node, *before: Node, ours: bool = False, known: str = "") -> FencingEvidence:
    return find_proof(here, seen(*before, here), own_taint=ours, known_method=known, now=NOW)


# -- attestations -----------------------------------------------------------------------------------------------------


def test_an_attestation_that_names_node_and_boot_is_proof() -> None:
    found = look(fenced_node(said=SAID))
    assert found.proof == Proof(ProofMethod.ATTESTED, "attested at 2026-01-01 11:59:00Z: fence_ipmilan")
    assert not found.rejections


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("yes", "not JSON"),
        ("[" * 4096, "not JSON"),
        ("[" * 100_000, "longer than 4096 characters"),
        ("[]", "not a JSON object"),
        ("{}", "lacks nodeUID, bootID, method, time"),
        (json.dumps(SAID | {"bootID": 7}), "bootID must be text"),
        (json.dumps(SAID | {"method": ""}), "method must be text"),
        (json.dumps(SAID | {"method": "\ud800"}), "half a surrogate pair"),
        ('{"nodeUID": "u", "nodeUID": "v"}', "a key occurs twice"),
        (json.dumps(SAID | {"method": "a\nb"}), "method must be text"),
        (json.dumps(SAID | {"time": "yesterday"}), "no time with a time zone"),
        (json.dumps(SAID | {"time": "2026-01-01T12:00:00"}), "no time with a time zone"),
        (json.dumps(SAID | {"time": "0001-01-01T00:00:00+12:00"}), "no time with a time zone"),
        (json.dumps(SAID | {"time": "9999-12-31T23:59:59-12:00"}), "no time with a time zone"),
    ],
)
def test_a_malformed_attestation_says_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_attestation(text)
    if text:
        found = look(fenced_node(said=text))
        assert found.proof is None
        assert why in str(found.attestation_error)
        assert why in found.rejections[0]


@given(st.text() | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(json.dumps))
def test_no_annotation_raises(text: str) -> None:
    assert find_proof(fenced_node(said=text), None, own_taint=False, known_method="", now=NOW).proof is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"nodeUID": "other"}, "names node UID other"),
        ({"bootID": "other"}, "names boot other"),
        ({"time": "2026-01-01T11:52:59Z"}, "before this failure"),
        ({"time": "2026-01-01T12:05:01Z"}, "in the future"),
    ],
)
def test_attestation_of_another_node_boot_or_time_is_no_proof(changes: dict[str, str], why: str) -> None:
    found = look(fenced_node(said=SAID | changes))
    assert found.proof is None
    assert why in str(found.attestation_error)


def test_attestation_may_be_a_little_older_than_the_failure() -> None:
    assert look(fenced_node(said=SAID | {"time": "2026-01-01T13:53:30+02:00"})).proof


def test_attestation_is_refuted_after_the_boot_came_back() -> None:
    dead, alive = fenced_node(said=SAID), fenced_node("True", said=SAID)
    assert look(dead, fenced_node("True"), dead).proof
    found = look(dead, dead, alive)
    assert found.proof is None
    assert "came back" in str(found.attestation_error)
    assert look(fenced_node(said=SAID | {"time": "2026-01-01T11:59:59Z"}), dead, alive).proof


def test_attestation_before_the_node_becomes_unknown_is_proof() -> None:
    assert look(fenced_node(said=SAID), fenced_node("True"), fenced_node("True", said=SAID)).proof


def test_command_in_the_hint_is_proof() -> None:
    text = proof_hint(fenced_node())
    said = text[text.index("{") : text.index("}") + 1]
    assert f"kubectl annotate --overwrite node n {names.FENCED}='{said}'" in text
    assert look(fenced_node(said=said)).proof


# -- taints -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taint", "method"),
    [(SHUTDOWN, ProofMethod.SHUTDOWN), (FOREIGN, ProofMethod.OUT_OF_SERVICE), (MINE, ProofMethod.OUT_OF_SERVICE)],
)
def test_new_taint_is_proof(taint: Taint, method: ProofMethod) -> None:
    here = fenced_node("Unknown", taint)
    for before in (fenced_node("True"), fenced_node(), fenced_node("False")):
        found = look(here, before).proof
        assert found
        assert found.method is method


@pytest.mark.parametrize("taint", [SHUTDOWN, FOREIGN])
@pytest.mark.parametrize(
    "before",
    [
        (),  # the first observation is now
        ("True+",),
        ("Unknown", "Unknown+", "True+"),  # the boot was not dead
    ],
)
def test_old_taint_is_no_proof(taint: Taint, before: tuple[str, ...]) -> None:
    sights = [fenced_node(s.removesuffix("+"), *([taint] if s.endswith("+") else [])) for s in before]
    found = look(fenced_node("Unknown", taint), *sights)
    assert found.proof is None
    assert taint.key in found.rejections[0]


def test_taint_of_an_earlier_boot_is_no_proof() -> None:
    old = fenced_node("Unknown", SHUTDOWN)
    assert look(old, fenced_node("True"), old).proof
    assert look(fenced_node("False", SHUTDOWN, boot="c"), fenced_node("True"), old).proof is None
    assert look(fenced_node("Unknown", SHUTDOWN, uid="v"), fenced_node("True"), old).proof is None


def test_old_taint_is_proof_after_it_is_set_again() -> None:
    there = fenced_node("Unknown", SHUTDOWN)
    assert look(there, there, fenced_node(), there).proof


def test_proof_in_the_status_stays_valid_after_a_restart() -> None:
    assert look(fenced_node("Unknown", SHUTDOWN), known="ProviderShutdown").proof
    assert look(fenced_node("Unknown", FOREIGN), known="ProviderShutdown").proof is None
    assert look(fenced_node(), known="ProviderShutdown").proof is None


def test_own_taint_is_no_proof() -> None:
    assert look(fenced_node("Unknown", MINE), fenced_node(), ours=True) == FencingEvidence()
    assert look(fenced_node("Unknown", MINE, FOREIGN), fenced_node(), ours=True).proof


@pytest.mark.parametrize("proof", [SAID, SHUTDOWN, FOREIGN])
def test_ready_node_is_never_proven_dead(proof: object) -> None:
    here = fenced_node("True", proof) if isinstance(proof, Taint) else fenced_node("True", said=proof)
    assert look(here, fenced_node("Unknown")) == FencingEvidence()


def test_time_is_no_proof() -> None:
    long = replace(
        fenced_node(), conditions=(NodeCondition("Ready", "Unknown", last_transition=NOW - timedelta(days=30)),)
    )
    assert look(long, fenced_node("True")) == FencingEvidence()


@given(
    st.lists(
        st.tuples(st.sampled_from(["True", "False", "Unknown"]), st.booleans(), st.sampled_from("bc")), max_size=6
    ),
)
def test_taint_is_proof_only_if_absent_since_the_last_ready(
    sights: list[tuple[str, bool, str]],
) -> None:
    nodes = [fenced_node(ready, *([SHUTDOWN] if tainted else []), boot=boot) for ready, tainted, boot in sights]
    last = fenced_node("Unknown", SHUTDOWN)
    fresh = False
    previous = ""
    for ready, tainted, boot in [*sights, ("Unknown", True, "b")]:
        fresh = (fresh and boot == previous and ready != "True") or not tainted
        previous = boot
    assert bool(look(last, *nodes).proof) is fresh


# -- writes of the taint ----------------------------------------------------------------------------------------------

RECORD = NodeRecord(uid="u", boot_id="b", cordoned_by_us=True, added_taints=(OUT_OF_SERVICE_TAINT,))
NONE = NodeRecord(uid="u", boot_id="b", cordoned_by_us=True)
OTHER_BOOT = RECORD.model_copy(update={"boot_id": "a"})


@pytest.mark.parametrize(
    ("here", "record", "due", "busy", "expected"),
    [
        # not set yet
        (fenced_node(), NONE, True, True, TaintAction.SET),
        (fenced_node("False"), NONE, True, True, TaintAction.SET),
        (fenced_node(), NONE, False, True, TaintAction.NOTHING),
        (fenced_node("True"), NONE, True, True, TaintAction.NOTHING),
        # another party set the taint, and removes it
        (fenced_node("Unknown", FOREIGN), NONE, True, True, TaintAction.NOTHING),
        (fenced_node("True", FOREIGN), NONE, False, False, TaintAction.NOTHING),
        (fenced_node("Unknown", FOREIGN), RECORD, True, True, TaintAction.CLEAR_RECORD),
        # recorded but absent: a crash between two writes, or another party removed it
        (fenced_node(), RECORD, True, True, TaintAction.SET),
        (fenced_node(), RECORD, False, True, TaintAction.CLEAR_RECORD),
        (fenced_node("True"), RECORD, False, False, TaintAction.CLEAR_RECORD),
        # the taint stays, for any time
        (fenced_node("Unknown", MINE), RECORD, True, True, TaintAction.NOTHING),
        (fenced_node("Unknown", MINE), RECORD, False, False, TaintAction.NOTHING),
        (fenced_node("False", MINE), RECORD, False, False, TaintAction.NOTHING),
        (fenced_node("True", MINE), RECORD, False, True, TaintAction.NOTHING),
        # the taint is removed
        (fenced_node("True", MINE), RECORD, False, False, TaintAction.REMOVE),
        (fenced_node("True", MINE), OTHER_BOOT, False, True, TaintAction.REMOVE),
        (fenced_node("False", MINE), OTHER_BOOT, False, True, TaintAction.REMOVE),
        (fenced_node("Unknown", MINE), OTHER_BOOT, True, True, TaintAction.REMOVE),
        # another machine with the same name
        (fenced_node("Unknown", MINE, uid="v"), RECORD, False, True, TaintAction.NOTHING),
        (fenced_node("True", uid="v"), RECORD, False, True, TaintAction.NOTHING),
    ],
)
def test_taint_action(here: Node, record: NodeRecord, due: bool, busy: bool, expected: TaintAction) -> None:
    assert taint_action(here, record, taint_due=due, node_in_use=busy) is expected


@given(
    ready=st.sampled_from(["True", "False", "Unknown"]),
    due=st.booleans(),
    busy=st.booleans(),
    record=st.sampled_from([RECORD, NONE, OTHER_BOOT, None]),
    taints=st.sets(st.sampled_from([MINE, FOREIGN, SHUTDOWN])),
)
def test_taint_is_never_set_on_ready_or_removed_from_dead_nodes(
    ready: str, due: bool, busy: bool, record: NodeRecord | None, taints: set[Taint]
) -> None:
    here = fenced_node(ready, *taints)
    found = taint_action(here, record, taint_due=due, node_in_use=busy)
    if found is TaintAction.SET:
        assert due
        assert ready != "True"
        assert not {t for t in taints if t.key == names.OUT_OF_SERVICE_TAINT_KEY}
    if found is TaintAction.REMOVE:
        assert record
        assert OUT_OF_SERVICE_TAINT in record.added_taints
        assert record.boot_id != "b" or (ready == "True" and not busy)
    assert not (found is TaintAction.REMOVE and must_keep_taint(here, record, node_in_use=busy))


def test_boot_with_own_taint_that_is_ready_has_returned() -> None:
    assert returned_without_reboot(fenced_node("True", MINE), RECORD)
    assert not returned_without_reboot(fenced_node("True", MINE), OTHER_BOOT)
    assert not returned_without_reboot(fenced_node("Unknown", MINE), RECORD)
    assert not returned_without_reboot(fenced_node("True"), RECORD)
    assert not returned_without_reboot(fenced_node("True", FOREIGN), NONE)


# -- the condition ----------------------------------------------------------------------------------------------------

PROVEN = FencingState(failing=True, proof=Proof(ProofMethod.SHUTDOWN, "off"))


@pytest.mark.parametrize(
    ("standing", "waiting", "needed", "expected"),
    [
        (FencingState(), 0, False, None),
        (PROVEN, 0, False, None),
        (PROVEN, 2, False, ("True", "ProviderShutdown")),
        (PROVEN, 0, True, ("True", "ProviderShutdown")),
        (FencingState(failing=True), 0, True, None),
        (FencingState(failing=True), 1, False, ("False", "WaitingForProof")),
        (FencingState(failing=True, force_forbidden=True), 1, False, ("False", "ForceNever")),
        (FencingState(returned_without_reboot=True), 0, True, ("False", "ReturnedWithoutReboot")),
    ],
)
def test_fenced_condition(standing: FencingState, waiting: int, needed: bool, expected: tuple[str, str] | None) -> None:
    found = fenced_condition(standing, pods_waiting=waiting, proof_used=needed)
    assert (found[:2] if found else None) == expected


def test_fenced_condition_names_what_is_no_proof() -> None:
    found = fenced_condition(
        FencingState(failing=True, rejections=("the taint x is old",)), pods_waiting=1, proof_used=False
    )
    assert found
    assert "1 pod must not run twice" in found[2]
    assert "the taint x is old" in found[2]
