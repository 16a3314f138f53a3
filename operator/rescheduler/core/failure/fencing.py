"""Whether a node's boot is proven dead, and what follows for the taint that takes the node out of service.

Time alone is never proof: a silent node may run on, and write to its volumes. What counts is bound to one boot of
one machine, and was said since that boot was last known to live: what an earlier failure left behind proves nothing.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from rescheduler.api import names
from rescheduler.api.drains import NodeRecord, TaintRecord
from rescheduler.api.untrusted import parse_json_object, parse_time
from rescheduler.core.model.nodes import Node

READY = "True"
"""`Ready` has this status where the kubelet says that all is well."""
ATTESTATION_TOLERANCE = timedelta(minutes=5)
"""The node controller stamps a failure up to its grace period after it happened, and clocks differ."""
OUT_OF_SERVICE_TAINT = TaintRecord(key=names.OUT_OF_SERVICE_TAINT_KEY, effect="NoSchedule")
"""Never NoExecute: that would end the node's DaemonSet pods too, its CNI and CSI among them."""
_PROOF_TAINTS = frozenset((names.SHUTDOWN_TAINT_KEY, names.OUT_OF_SERVICE_TAINT_KEY))
_ATTESTATION_KEYS = ("nodeUID", "bootID", "method", "time")
_MAX_METHOD_LENGTH = 200
_MAX_ATTESTATION_LENGTH = 4096


class ProofMethod(StrEnum):
    """Kinds of proof; the reasons of `Fenced=True`."""

    ATTESTED = "Attested"
    SHUTDOWN = "ProviderShutdown"
    OUT_OF_SERVICE = "OutOfService"


@dataclass(frozen=True, slots=True)
class Proof:
    """That the boot which the node's status names is dead; `words`: who says so."""

    method: ProofMethod
    description: str


@dataclass(frozen=True, slots=True)
class FencingEvidence:
    """What a node's object says of its death.

    Attributes:
        doubts: why what looks like proof is none.
        refused: what is wrong with the attestation, where it is none.
    """

    proof: Proof | None = None
    rejections: tuple[str, ...] = ()
    attestation_error: str = ""


# -- what is said -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attestation:
    """The annotation `rescheduler.dev/fenced`: somebody's word that a boot is dead."""

    node_uid: str
    boot_id: str
    method: str
    time: datetime


def parse_attestation(text: str) -> Attestation:
    """From the annotation. Raises ValueError that says what is wrong with it."""
    found = parse_json_object(text, _MAX_ATTESTATION_LENGTH)
    if missing := [key for key in _ATTESTATION_KEYS if key not in found]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    if wrong := [
        key
        for key in _ATTESTATION_KEYS
        if not isinstance(found[key], str) or not found[key] or not found[key].isprintable()
    ]:
        raise ValueError(f"{', '.join(wrong)} must be text on one line, and not empty")
    return Attestation(
        found["nodeUID"], found["bootID"], found["method"][:_MAX_METHOD_LENGTH], _parse_time(found["time"])
    )


def _parse_time(text: str) -> datetime:
    if found := parse_time(text):
        return found
    raise ValueError(f"its time {text!r:.60} is no time with a time zone, such as 2026-01-31T22:00:00Z")


@dataclass(frozen=True, slots=True)
class BootHistory:
    """What was seen of one boot over time, so that what an earlier failure left behind is told from news.

    Attributes:
        fresh: keys of taints that this boot was seen without since it was last Ready: set now, they speak of it.
        refuted: an attestation after which this boot came back.
    """

    node_uid: str = ""
    boot_id: str = ""
    ready: str = ""
    attestation: str = ""
    absent_taints: frozenset[str] = frozenset()
    refuted_attestation: str = ""


def observe_boot(previous: BootHistory | None, node: Node) -> BootHistory:
    """Bring what was seen up to date with the node as it is now."""
    if previous is None or (previous.node_uid, previous.boot_id) != (node.uid, node.boot_id):
        previous = BootHistory()
    attested = node.annotations.get(names.FENCED, "")
    absent = _PROOF_TAINTS - {taint.key for taint in node.taints}
    came_back = node.ready_status == READY and previous.ready not in ("", READY) and attested == previous.attestation
    refuted = attested if came_back else previous.refuted_attestation
    kept = previous.absent_taints if node.ready_status != READY else frozenset[str]()
    return BootHistory(node.uid, node.boot_id, node.ready_status, attested, absent | kept, refuted)


def find_proof(
    node: Node, boot_history: BootHistory | None, *, own_taint: bool, known_method: str, now: datetime
) -> FencingEvidence:
    """What the node's object proves.

    `ours`: the out-of-service taint without a value is this drain's own, and proves nothing. `known`: the method by
    which the status already says that this boot is dead: what was fresh before a restart of ours still is.
    """
    if node.ready_status == READY:
        return FencingEvidence()
    doubts: list[str] = []
    refused = ""
    if text := node.annotations.get(names.FENCED, ""):
        try:
            return FencingEvidence(_attestation_proof(node, parse_attestation(text), text, boot_history, now))
        except ValueError as error:
            refused = str(error)
            doubts.append(f"the annotation {names.FENCED} is not taken as proof: {refused}")
    fresh = (
        boot_history.absent_taints
        if boot_history and (boot_history.node_uid, boot_history.boot_id) == (node.uid, node.boot_id)
        else frozenset[str]()
    )
    for method, key, words in (
        (
            ProofMethod.SHUTDOWN,
            names.SHUTDOWN_TAINT_KEY,
            f"the provider has shut the machine down (taint {names.SHUTDOWN_TAINT_KEY})",
        ),
        (
            ProofMethod.OUT_OF_SERVICE,
            names.OUT_OF_SERVICE_TAINT_KEY,
            f"somebody set the taint {names.OUT_OF_SERVICE_TAINT_KEY}",
        ),
    ):
        if not any(t.key == key and not (own_taint and _is_own_taint(t.key, t.value, t.effect)) for t in node.taints):
            continue
        if key in fresh or known_method == method:
            return FencingEvidence(Proof(method, words), attestation_error=refused)
        doubts.append(
            f"the taint {key} may be left from before this boot last lived: take it off, "
            "and have it set again where it still holds"
        )
    return FencingEvidence(None, tuple(doubts), refused)


def _attestation_proof(
    node: Node, attestation: Attestation, text: str, boot_history: BootHistory | None, now: datetime
) -> Proof:
    """The proof in an attestation. Raises ValueError that says why there is none."""
    ready = node.condition("Ready")
    failed = ready.last_transition if ready else None
    wrong = (
        (
            attestation.node_uid != node.uid,
            f"it names node UID {attestation.node_uid:.60}, and this Node has {node.uid}",
        ),
        (not node.boot_id, "the node has never reported a boot"),
        (
            attestation.boot_id != node.boot_id,
            f"it names boot {attestation.boot_id:.60}, and the node's boot is {node.boot_id}",
        ),
        (
            boot_history is not None and boot_history.refuted_attestation == text,
            "this very boot came back after it was said",
        ),
        (
            ready is not None and failed is None,
            "when this failure began cannot be read: its condition Ready has no such time",
        ),
        (
            failed is not None and attestation.time < failed - ATTESTATION_TOLERANCE,
            f"its time {attestation.time:%Y-%m-%d %H:%M:%SZ} is before this failure: say it anew",
        ),
        (
            attestation.time > now + ATTESTATION_TOLERANCE,
            f"its time {attestation.time:%Y-%m-%d %H:%M:%SZ} is yet to come",
        ),
    )
    for holds, why in wrong:
        if holds:
            raise ValueError(why)
    return Proof(ProofMethod.ATTESTED, f"attested at {attestation.time:%Y-%m-%d %H:%M:%SZ}: {attestation.method}")


def proof_hint(node: Node) -> str:
    """What would be proof, to paste."""
    ready = node.condition("Ready")
    since = ready.last_transition if ready and ready.last_transition else node.created
    said = {
        "nodeUID": node.uid,
        "bootID": node.boot_id,
        "method": "switched off by hand",
        "time": f"{since:%Y-%m-%dT%H:%M:%SZ}" if since else "",
    }
    return (
        "let it come back; or make certain that the machine is off, and say so: "
        f"kubectl annotate --overwrite node {node.name} {names.FENCED}='{json.dumps(said, separators=(',', ':'))}'; "
        "a provider's shutdown taint, a fencer's out-of-service taint or the Node's deletion say it too"
    )


# -- the taint --------------------------------------------------------------------------------------------------------


class TaintAction(StrEnum):
    """What is to be done about the out-of-service taint."""

    NOTHING = "Nothing"
    SET = "Set"
    REMOVE = "Lift"
    CLEAR_RECORD = "Forget"  # the record names it, and it is not there


def _is_own_taint(key: str, value: str, effect: str) -> bool:
    return (key, value, effect) == (OUT_OF_SERVICE_TAINT.key, OUT_OF_SERVICE_TAINT.value, OUT_OF_SERVICE_TAINT.effect)


def is_taint_recorded(node: Node, record: NodeRecord | None) -> bool:
    """Whether this drain has set the taint, or is about to."""
    return record is not None and record.uid == node.uid and OUT_OF_SERVICE_TAINT in record.added_taints


def has_own_taint(node: Node, record: NodeRecord | None) -> bool:
    """Whether this drain's taint is on the node."""
    return is_taint_recorded(node, record) and any(_is_own_taint(t.key, t.value, t.effect) for t in node.taints)


def returned_without_reboot(node: Node, record: NodeRecord | None) -> bool:
    """The boot that was said to be dead is back: its containers ran all along."""
    same = record is not None and record.boot_id == node.boot_id
    return has_own_taint(node, record) and same and node.ready_status == READY


def must_keep_taint(node: Node, record: NodeRecord | None, *, node_in_use: bool) -> bool:
    """Whether this drain's taint is on the node and may not go: never by time, and not when it is cancelled.

    `busy`: something on the node is Terminating, or attached though no pod there uses it.
    """
    if record is None or not has_own_taint(node, record) or record.boot_id != node.boot_id:
        return False
    return node_in_use or node.ready_status != READY


def taint_action(node: Node, record: NodeRecord | None, *, taint_due: bool, node_in_use: bool) -> TaintAction:
    """What is to be done about the taint; `due`: proven, and all pods that it is for are Terminating."""
    if has_own_taint(node, record):
        return TaintAction.NOTHING if must_keep_taint(node, record, node_in_use=node_in_use) else TaintAction.REMOVE
    if any(t.key == names.OUT_OF_SERVICE_TAINT_KEY for t in node.taints):
        return (
            TaintAction.CLEAR_RECORD if is_taint_recorded(node, record) else TaintAction.NOTHING
        )  # somebody else's: theirs to take off
    if taint_due and node.ready_status != READY:
        return TaintAction.SET
    return TaintAction.CLEAR_RECORD if is_taint_recorded(node, record) else TaintAction.NOTHING


# -- what a drain makes of it -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FencingState:
    """Where a drain stands with the failure of its node.

    Attributes:
        failing: the failure is acted on: it was asked for, and holds now.
        hint: what would be proof, for people.
        forbidden: the policy forbids force.
        returned: the boot that was said to be dead is back.
    """

    failing: bool = False
    proof: Proof | None = None
    rejections: tuple[str, ...] = ()
    proof_hint: str = ""
    force_forbidden: bool = False
    returned_without_reboot: bool = False


def fenced_condition(state: FencingState, *, pods_waiting: int, proof_used: bool) -> tuple[str, str, str] | None:
    """The condition `Fenced`: status, reason, message; None where no proof is needed.

    `waiting`: pods that wait for it; `needed`: some were, or are, moved by it.
    """
    if state.returned_without_reboot:
        return "False", "ReturnedWithoutReboot", "the boot that was said to be dead is back: it ran all along"
    if state.proof and (pods_waiting or proof_used):
        return "True", state.proof.method, state.proof.description
    if not pods_waiting:
        return None
    pods = f"{pods_waiting} pod{'' if pods_waiting == 1 else 's'} must not run twice"
    if state.force_forbidden:
        return "False", "ForceNever", f"{pods}, and failure.force is Never"
    return "False", "WaitingForProof", "; ".join((f"{pods}: no proof that the node is dead", *state.rejections))
