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
from rescheduler.api.untrusted import json_object, time
from rescheduler.core.model.nodes import Node

ALIVE = "True"
"""`Ready` has this status where the kubelet says that all is well."""
LATE = timedelta(minutes=5)
"""The node controller stamps a failure up to its grace period after it happened, and clocks differ."""
OURS = TaintRecord(key=names.OUT_OF_SERVICE, effect="NoSchedule")
"""Never NoExecute: that would end the node's DaemonSet pods too, its CNI and CSI among them."""
_TELLING = frozenset((names.SHUTDOWN, names.OUT_OF_SERVICE))
_KEYS = ("nodeUID", "bootID", "method", "time")
_LONGEST_METHOD = 200
_LONGEST = 4096


class Method(StrEnum):
    """Kinds of proof; the reasons of `Fenced=True`."""

    ATTESTED = "Attested"
    SHUTDOWN = "ProviderShutdown"
    OUT_OF_SERVICE = "OutOfService"


@dataclass(frozen=True, slots=True)
class Proof:
    """That the boot which the node's status names is dead; `words`: who says so."""

    method: Method
    words: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a node's object says of its death.

    Attributes:
        doubts: why what looks like proof is none.
        refused: what is wrong with the attestation, where it is none.
    """

    proof: Proof | None = None
    doubts: tuple[str, ...] = ()
    refused: str = ""


# -- what is said -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attestation:
    """The annotation `rescheduler.dev/fenced`: somebody's word that a boot is dead."""

    node_uid: str
    boot_id: str
    method: str
    time: datetime


def attestation(text: str) -> Attestation:
    """From the annotation. Raises ValueError that says what is wrong with it."""
    found = json_object(text, _LONGEST)
    if missing := [key for key in _KEYS if key not in found]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    if wrong := [
        key for key in _KEYS if not isinstance(found[key], str) or not found[key] or not found[key].isprintable()
    ]:
        raise ValueError(f"{', '.join(wrong)} must be text on one line, and not empty")
    return Attestation(found["nodeUID"], found["bootID"], found["method"][:_LONGEST_METHOD], _time(found["time"]))


def _time(text: str) -> datetime:
    if found := time(text):
        return found
    raise ValueError(f"its time {text!r:.60} is no time with a time zone, such as 2026-01-31T22:00:00Z")


@dataclass(frozen=True, slots=True)
class Witness:
    """What was seen of one boot over time, so that what an earlier failure left behind is told from news.

    Attributes:
        fresh: keys of taints that this boot was seen without since it was last Ready: set now, they speak of it.
        refuted: an attestation after which this boot came back.
    """

    uid: str = ""
    boot_id: str = ""
    ready: str = ""
    attested: str = ""
    fresh: frozenset[str] = frozenset()
    refuted: str = ""


def witness(before: Witness | None, node: Node) -> Witness:
    """Bring what was seen up to date with the node as it is now."""
    if before is None or (before.uid, before.boot_id) != (node.uid, node.boot_id):
        before = Witness()
    attested = node.annotations.get(names.FENCED, "")
    absent = _TELLING - {taint.key for taint in node.taints}
    came_back = node.ready == ALIVE and before.ready not in ("", ALIVE) and attested == before.attested
    refuted = attested if came_back else before.refuted
    kept = before.fresh if node.ready != ALIVE else frozenset[str]()
    return Witness(node.uid, node.boot_id, node.ready, attested, absent | kept, refuted)


def find(node: Node, seen: Witness | None, *, ours: bool, known: str, now: datetime) -> Finding:
    """What the node's object proves.

    `ours`: the out-of-service taint without a value is this drain's own, and proves nothing. `known`: the method by
    which the status already says that this boot is dead: what was fresh before a restart of ours still is.
    """
    if node.ready == ALIVE:
        return Finding()
    doubts: list[str] = []
    refused = ""
    if text := node.annotations.get(names.FENCED, ""):
        try:
            return Finding(_attested(node, attestation(text), text, seen, now))
        except ValueError as error:
            refused = str(error)
            doubts.append(f"the annotation {names.FENCED} is not taken as proof: {refused}")
    fresh = seen.fresh if seen and (seen.uid, seen.boot_id) == (node.uid, node.boot_id) else frozenset[str]()
    for method, key, words in (
        (Method.SHUTDOWN, names.SHUTDOWN, f"the provider has shut the machine down (taint {names.SHUTDOWN})"),
        (Method.OUT_OF_SERVICE, names.OUT_OF_SERVICE, f"somebody set the taint {names.OUT_OF_SERVICE}"),
    ):
        if not any(t.key == key and not (ours and _is_ours(t.key, t.value, t.effect)) for t in node.taints):
            continue
        if key in fresh or known == method:
            return Finding(Proof(method, words), refused=refused)
        doubts.append(
            f"the taint {key} may be left from before this boot last lived: take it off, "
            "and have it set again where it still holds"
        )
    return Finding(None, tuple(doubts), refused)


def _attested(node: Node, said: Attestation, text: str, seen: Witness | None, now: datetime) -> Proof:
    """The proof in an attestation. Raises ValueError that says why there is none."""
    ready = node.condition("Ready")
    failed = ready.transition if ready else None
    wrong = (
        (said.node_uid != node.uid, f"it names node UID {said.node_uid:.60}, and this Node has {node.uid}"),
        (not node.boot_id, "the node has never reported a boot"),
        (said.boot_id != node.boot_id, f"it names boot {said.boot_id:.60}, and the node's boot is {node.boot_id}"),
        (seen is not None and seen.refuted == text, "this very boot came back after it was said"),
        (
            ready is not None and failed is None,
            "when this failure began cannot be read: its condition Ready has no such time",
        ),
        (
            failed is not None and said.time < failed - LATE,
            f"its time {said.time:%Y-%m-%d %H:%M:%SZ} is before this failure: say it anew",
        ),
        (said.time > now + LATE, f"its time {said.time:%Y-%m-%d %H:%M:%SZ} is yet to come"),
    )
    for holds, why in wrong:
        if holds:
            raise ValueError(why)
    return Proof(Method.ATTESTED, f"attested at {said.time:%Y-%m-%d %H:%M:%SZ}: {said.method}")


def hint(node: Node) -> str:
    """What would be proof, to paste."""
    ready = node.condition("Ready")
    since = ready.transition if ready and ready.transition else node.created
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


class Act(StrEnum):
    """What is to be done about the out-of-service taint."""

    NOTHING = "Nothing"
    SET = "Set"
    LIFT = "Lift"
    FORGET = "Forget"  # the record names it, and it is not there


def _is_ours(key: str, value: str, effect: str) -> bool:
    return (key, value, effect) == (OURS.key, OURS.value, OURS.effect)


def recorded(node: Node, record: NodeRecord | None) -> bool:
    """Whether this drain has set the taint, or is about to."""
    return record is not None and record.uid == node.uid and OURS in record.added_taints


def set_by_us(node: Node, record: NodeRecord | None) -> bool:
    """Whether this drain's taint is on the node."""
    return recorded(node, record) and any(_is_ours(t.key, t.value, t.effect) for t in node.taints)


def returned(node: Node, record: NodeRecord | None) -> bool:
    """The boot that was said to be dead is back: its containers ran all along."""
    same = record is not None and record.boot_id == node.boot_id
    return set_by_us(node, record) and same and node.ready == ALIVE


def stays(node: Node, record: NodeRecord | None, *, busy: bool) -> bool:
    """Whether this drain's taint is on the node and may not go: never by time, and not when it is cancelled.

    `busy`: something on the node is Terminating, or attached though no pod there uses it.
    """
    if record is None or not set_by_us(node, record) or record.boot_id != node.boot_id:
        return False
    return busy or node.ready != ALIVE


def act(node: Node, record: NodeRecord | None, *, due: bool, busy: bool) -> Act:
    """What is to be done about the taint; `due`: proven, and all pods that it is for are Terminating."""
    if set_by_us(node, record):
        return Act.NOTHING if stays(node, record, busy=busy) else Act.LIFT
    if any(t.key == names.OUT_OF_SERVICE for t in node.taints):
        return Act.FORGET if recorded(node, record) else Act.NOTHING  # somebody else's: theirs to take off
    if due and node.ready != ALIVE:
        return Act.SET
    return Act.FORGET if recorded(node, record) else Act.NOTHING


# -- what a drain makes of it -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a drain stands with the failure of its node.

    Attributes:
        failing: the failure is acted on: it was asked for, and holds now.
        hint: what would be proof, for people.
        forbidden: the policy forbids force.
        returned: the boot that was said to be dead is back.
    """

    failing: bool = False
    proof: Proof | None = None
    doubts: tuple[str, ...] = ()
    hint: str = ""
    forbidden: bool = False
    returned: bool = False


def condition(standing: Standing, *, waiting: int, needed: bool) -> tuple[str, str, str] | None:
    """The condition `Fenced`: status, reason, message; None where no proof is needed.

    `waiting`: pods that wait for it; `needed`: some were, or are, moved by it.
    """
    if standing.returned:
        return "False", "ReturnedWithoutReboot", "the boot that was said to be dead is back: it ran all along"
    if standing.proof and (waiting or needed):
        return "True", standing.proof.method, standing.proof.words
    if not waiting:
        return None
    pods = f"{waiting} pod{'' if waiting == 1 else 's'} must not run twice"
    if standing.forbidden:
        return "False", "ForceNever", f"{pods}, and failure.force is Never"
    return "False", "WaitingForProof", "; ".join((f"{pods}: no proof that the node is dead", *standing.doubts))
