"""Decide whether the boot of a node is proven dead, and what to do about the out-of-service taint.

Time is never proof: a silent node may still run and write to its volumes. A proof is bound to one boot of one machine,
and is newer than the last sign of life of that boot. A proof of an earlier failure proves nothing.
docs/guides/fencing.md lists the proofs.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from rescheduler.api import names
from rescheduler.api.drains import NodeRecord, TaintRecord
from rescheduler.api.untrusted import parse_json_object, parse_time
from rescheduler.core.failure import messages
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.pods import Pod

READY = "True"
"""The status of the condition `Ready` of a node whose kubelet reports no failure."""
ATTESTATION_TOLERANCE = timedelta(minutes=5)
"""The node controller writes the time of a failure up to its grace period later, and clocks differ."""
OUT_OF_SERVICE_TAINT = TaintRecord(key=names.OUT_OF_SERVICE_TAINT_KEY, effect="NoSchedule")
"""The effect is never NoExecute: that would also end the node's DaemonSet pods, and with them its CNI and CSI."""
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
    """Evidence that the current boot of the node is dead; `description`: the evidence as text."""

    method: ProofMethod
    description: str


@dataclass(frozen=True, slots=True)
class FencingEvidence:
    """The evidence in a Node object about the death of its boot.

    Attributes:
        proof: the proof; None if there is none.
        rejections: why an annotation or taint is not proof.
        attestation_error: what is wrong with the attestation; None if it is right or absent.
    """

    proof: Proof | None = None
    rejections: tuple[str, ...] = ()
    attestation_error: str | None = None


# -- evidence ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attestation:
    """The annotation `rescheduler.dev/fenced`, by which a person or a fencer states that a boot is dead."""

    node_uid: str
    boot_id: str
    method: str
    time: datetime


def parse_attestation(text: str) -> Attestation:
    """Return the attestation in the annotation. Raises ValueError that says what is wrong with it."""
    fields = parse_json_object(text, _MAX_ATTESTATION_LENGTH)
    if missing := [key for key in _ATTESTATION_KEYS if key not in fields]:
        raise ValueError(messages.fields_missing(missing))
    if wrong := [
        key
        for key in _ATTESTATION_KEYS
        if not isinstance(fields[key], str) or not fields[key] or not fields[key].isprintable()
    ]:
        raise ValueError(messages.fields_not_text(wrong))
    return Attestation(
        fields["nodeUID"], fields["bootID"], fields["method"][:_MAX_METHOD_LENGTH], _parse_time(fields["time"])
    )


def _parse_time(text: str) -> datetime:
    if time := parse_time(text):
        return time
    raise ValueError(messages.time_unreadable(text))


@dataclass(frozen=True, slots=True)
class BootHistory:
    """The observations of one boot over time, which tell new evidence from evidence of an earlier failure.

    Attributes:
        node_uid: the UID of the Node.
        boot_id: the boot ID that the Node reports.
        ready: the last status of its condition `Ready`.
        attestation: the last text of the annotation `rescheduler.dev/fenced`; empty without one.
        absent_taints: keys of proof taints that the boot has been without since it was last Ready; such a taint is new.
        refuted_attestation: an attestation after which this boot came back; None if there is none.
    """

    node_uid: str = ""
    boot_id: str = ""
    ready: str = ""
    attestation: str = ""
    absent_taints: frozenset[str] = frozenset()
    refuted_attestation: str | None = None


def observe_boot(previous: BootHistory | None, node: Node) -> BootHistory:
    """Return the history after one observation of the node."""
    if previous is None or (previous.node_uid, previous.boot_id) != (node.uid, node.boot_id):
        previous = BootHistory()
    attested = node.annotations.get(names.FENCED, "")
    absent = _PROOF_TAINTS - {taint.key for taint in node.taints}
    came_back = node.ready_status == READY and previous.ready not in ("", READY) and attested == previous.attestation
    refuted = (attested or None) if came_back else previous.refuted_attestation
    kept = previous.absent_taints if node.ready_status != READY else frozenset[str]()
    return BootHistory(node.uid, node.boot_id, node.ready_status, attested, absent | kept, refuted)


def find_proof(
    node: Node, boot_history: BootHistory | None, *, own_taint: bool, known_method: str, now: datetime
) -> FencingEvidence:
    """Return the evidence in the Node object.

    `own_taint`: this drain set the out-of-service taint without a value, which proves nothing. `known_method`: the
    method by which the status reports this boot dead already. It stays valid, because the history of the boot is lost
    in a restart of the operator.
    """
    if node.ready_status == READY:
        return FencingEvidence()
    rejections: list[str] = []
    attestation_error: str | None = None
    if text := node.annotations.get(names.FENCED, ""):
        try:
            return FencingEvidence(_attestation_proof(node, parse_attestation(text), text, boot_history, now))
        except ValueError as error:
            attestation_error = str(error)
            rejections.append(messages.attestation_not_proof(attestation_error))
    new_taints = (
        boot_history.absent_taints
        if boot_history and (boot_history.node_uid, boot_history.boot_id) == (node.uid, node.boot_id)
        else frozenset[str]()
    )
    for method, key, description in (
        (ProofMethod.SHUTDOWN, names.SHUTDOWN_TAINT_KEY, messages.SHUTDOWN_TAINT),
        (ProofMethod.OUT_OF_SERVICE, names.OUT_OF_SERVICE_TAINT_KEY, messages.OUT_OF_SERVICE_TAINT_SET),
    ):
        if not any(t.key == key and not (own_taint and _is_own_taint(t.key, t.value, t.effect)) for t in node.taints):
            continue
        if key in new_taints or known_method == method:
            return FencingEvidence(Proof(method, description), attestation_error=attestation_error)
        rejections.append(messages.taint_not_proof(key))
    return FencingEvidence(None, tuple(rejections), attestation_error)


def _attestation_proof(
    node: Node, attestation: Attestation, text: str, boot_history: BootHistory | None, now: datetime
) -> Proof:
    """Return the proof in an attestation. Raises ValueError that says why it is not proof."""
    ready = node.condition("Ready")
    failed_at = ready.last_transition if ready else None
    errors = (
        (attestation.node_uid != node.uid, messages.wrong_node(attestation.node_uid, node.uid)),
        (not node.boot_id, messages.NEVER_BOOTED),
        (attestation.boot_id != node.boot_id, messages.wrong_boot(attestation.boot_id, node.boot_id)),
        (boot_history is not None and boot_history.refuted_attestation == text, messages.ATTESTATION_REFUTED),
        (ready is not None and failed_at is None, messages.FAILURE_TIME_UNREADABLE),
        (
            failed_at is not None and attestation.time < failed_at - ATTESTATION_TOLERANCE,
            messages.before_failure(attestation.time),
        ),
        (attestation.time > now + ATTESTATION_TOLERANCE, messages.in_future(attestation.time)),
    )
    for holds, message in errors:
        if holds:
            raise ValueError(message)
    return Proof(ProofMethod.ATTESTED, messages.attested(attestation.time, attestation.method))


def proof_hint(node: Node) -> str:
    """Return the hint for a pod that waits for proof, with a command to paste."""
    ready = node.condition("Ready")
    since = ready.last_transition if ready and ready.last_transition else node.created
    attestation = {
        "nodeUID": node.uid,
        "bootID": node.boot_id,
        "method": "switched off by hand",
        "time": f"{since:%Y-%m-%dT%H:%M:%SZ}" if since else "",
    }
    return messages.attest(node.name, attestation)


# -- the taint --------------------------------------------------------------------------------------------------------


class TaintAction(StrEnum):
    """The next write of the out-of-service taint."""

    NOTHING = "Nothing"
    SET = "Set"
    REMOVE = "Lift"
    CLEAR_RECORD = "Forget"  # the record names the taint, but the node does not have it


def _is_own_taint(key: str, value: str, effect: str) -> bool:
    return (key, value, effect) == (OUT_OF_SERVICE_TAINT.key, OUT_OF_SERVICE_TAINT.value, OUT_OF_SERVICE_TAINT.effect)


def is_taint_recorded(node: Node, record: NodeRecord | None) -> bool:
    """Whether this drain has set the taint, or is about to."""
    return record is not None and record.uid == node.uid and OUT_OF_SERVICE_TAINT in record.added_taints


def has_own_taint(node: Node, record: NodeRecord | None) -> bool:
    """Whether this drain's taint is on the node."""
    return is_taint_recorded(node, record) and any(_is_own_taint(t.key, t.value, t.effect) for t in node.taints)


def returned_without_reboot(node: Node, record: NodeRecord | None) -> bool:
    """Whether the boot that was reported dead is back: its containers never stopped."""
    same = record is not None and record.boot_id == node.boot_id
    return has_own_taint(node, record) and same and node.ready_status == READY


def must_keep_taint(node: Node, record: NodeRecord | None, *, node_in_use: bool) -> bool:
    """Whether this drain's taint is on the node and must stay; neither time nor a cancelled drain removes it.

    `node_in_use`: a pod on the node is Terminating, or a volume is attached that no pod there uses.
    """
    if record is None or not has_own_taint(node, record) or record.boot_id != node.boot_id:
        return False
    return node_in_use or node.ready_status != READY


def taint_action(node: Node, record: NodeRecord | None, *, taint_due: bool, node_in_use: bool) -> TaintAction:
    """Return the next write of the taint; `taint_due`: the boot is proven dead, and all pods to remove are Terminating."""
    if has_own_taint(node, record):
        return TaintAction.NOTHING if must_keep_taint(node, record, node_in_use=node_in_use) else TaintAction.REMOVE
    if any(t.key == names.OUT_OF_SERVICE_TAINT_KEY for t in node.taints):
        # Another party set this taint. If this drain removed it, that party's fencing would end too early.
        return TaintAction.CLEAR_RECORD if is_taint_recorded(node, record) else TaintAction.NOTHING
    if taint_due and node.ready_status != READY:
        return TaintAction.SET
    return TaintAction.CLEAR_RECORD if is_taint_recorded(node, record) else TaintAction.NOTHING


# -- the state of a drain ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FencingState:
    """The state of a drain with regard to the failure of its node.

    Attributes:
        failing: whether the drain has a failure request, and the failure holds now.
        proof: the proof that the boot is dead; None if there is none.
        proof_pending: whether a proof exists that counts only after a longer silence of the Lease.
        rejections: why an annotation or taint is not proof.
        proof_hint: the hint for pods that wait for proof; None if no pod can wait.
        force_forbidden: whether the policy has `failure.force: Never`.
        returned_without_reboot: whether the boot that was reported dead is back.
        attestation_error: why the annotation `rescheduler.dev/fenced` is not proof; None if it is, or was not needed.
        pods_may_run: whether the boot is back, and pods that left it by proof may never have stopped.
        duplicates: such pods that run, each with the pod that replaces it and runs too.
    """

    failing: bool = False
    proof: Proof | None = None
    rejections: tuple[str, ...] = ()
    proof_hint: str | None = None
    force_forbidden: bool = False
    returned_without_reboot: bool = False
    proof_pending: bool = False
    attestation_error: str | None = None
    pods_may_run: bool = False
    duplicates: tuple[tuple[Pod, Pod], ...] = ()


def fenced_condition(state: FencingState, *, pods_waiting: int, proof_used: bool) -> tuple[str, str, str] | None:
    """Return status, reason and message of the condition `Fenced`; None if no proof is needed.

    `pods_waiting`: the number of pods that wait for proof. `proof_used`: whether the proof has moved pods already.
    """
    if state.returned_without_reboot:
        return "False", "ReturnedWithoutReboot", messages.RETURNED_WITHOUT_REBOOT
    if state.proof and (pods_waiting or proof_used):
        return "True", state.proof.method, state.proof.description
    if not pods_waiting:
        return None
    if state.force_forbidden:
        return "False", "ForceNever", messages.force_forbidden(pods_waiting)
    return "False", "WaitingForProof", messages.waiting_for_proof(pods_waiting, state.rejections)
