"""Texts about failed nodes for users: what is not proof, the condition `Fenced`, storms and blackouts.

docs/reference/conditions.md lists them, and docs/reference/blockers.md the hint.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from rescheduler.api import names
from rescheduler.api.scalars import NumberOrPercent

RETURNED_WITHOUT_REBOOT = "the boot that was reported dead is back: its containers never stopped"
NEVER_BOOTED = "the node has never reported a boot"
ATTESTATION_REFUTED = "this boot came back after the attestation"
FAILURE_TIME_UNREADABLE = "the start of this failure cannot be read: the condition Ready has no lastTransitionTime"
SHUTDOWN_TAINT = f"the provider has shut the machine down (taint {names.SHUTDOWN_TAINT_KEY})"
OUT_OF_SERVICE_TAINT_SET = f"another party set the taint {names.OUT_OF_SERVICE_TAINT_KEY}"
OR_LATE_LEASE = " or a late Lease"
OR_FLAPPING = " or had it again and again"
_OTHER_PROOF = (
    "a shutdown taint of the provider, an out-of-service taint of a fencer or the Node's deletion is proof too"
)


# -- attestations -----------------------------------------------------------------------------------------------------


def fields_missing(fields: Sequence[str]) -> str:
    """Return what is wrong with an attestation without these fields."""
    return f"it lacks {', '.join(fields)}"


def fields_not_text(fields: Sequence[str]) -> str:
    """Return what is wrong with an attestation whose fields are no text."""
    return f"{', '.join(fields)} must be text on one line, and not empty"


def time_unreadable(text: str) -> str:
    """Return what is wrong with the time of an attestation."""
    return f"its time {text!r:.60} is no time with a time zone, such as 2026-01-31T22:00:00Z"


def wrong_node(attested_uid: str, uid: str) -> str:
    """Return what is wrong with an attestation of another Node."""
    return f"it names node UID {attested_uid:.60}, and this Node has {uid}"


def wrong_boot(attested_boot_id: str, boot_id: str) -> str:
    """Return what is wrong with an attestation of another boot."""
    return f"it names boot {attested_boot_id:.60}, and the node's boot is {boot_id}"


def before_failure(time: datetime) -> str:
    """Return what is wrong with an attestation that is older than the failure."""
    return f"its time {time:%Y-%m-%d %H:%M:%SZ} is before this failure: attest again"


def in_future(time: datetime) -> str:
    """Return what is wrong with an attestation from the future."""
    return f"its time {time:%Y-%m-%d %H:%M:%SZ} is in the future: correct the clock, and attest again"


def attested(time: datetime, method: str) -> str:
    """Return the message of `Fenced=True`, reason `Attested`."""
    return f"attested at {time:%Y-%m-%d %H:%M:%SZ}: {method}"


def attestation_not_proof(error: str) -> str:
    """Return why the attestation on the node is not proof."""
    return f"the annotation {names.FENCED} is not taken as proof: {error}"


def taint_not_proof(key: str) -> str:
    """Return why a taint that may be older than the failure is not proof."""
    return (
        f"the taint {key} may be left over from before this boot was last alive: remove it, "
        "and set it again if it still holds"
    )


def attest(node: str, attestation: Mapping[str, str]) -> str:
    """Return the hint for a pod that waits for proof, with a command to paste."""
    text = json.dumps(attestation, separators=(",", ":"))
    return (
        "wait until the node is back; or make certain that the machine is off, and attest it: "
        f"kubectl annotate --overwrite node {node} {names.FENCED}='{text}'; {_OTHER_PROOF}"
    )


# -- the condition Fenced ---------------------------------------------------------------------------------------------


def waiting_for_proof(pods_waiting: int, rejections: Sequence[str]) -> str:
    """Return the message of `Fenced=False`, reason `WaitingForProof`."""
    return "; ".join((f"{_must_not_run_twice(pods_waiting)}: no proof that the node is dead", *rejections))


def force_forbidden(pods_waiting: int) -> str:
    """Return the message of `Fenced=False`, reason `ForceNever`."""
    return f"{_must_not_run_twice(pods_waiting)}, and failure.force is Never"


def _must_not_run_twice(pods: int) -> str:
    return f"{pods} pod{'' if pods == 1 else 's'} must not run twice"


# -- many nodes at once -----------------------------------------------------------------------------------------------


def storm(
    unhealthy: int, nodes: int, scope: tuple[str, str], cause: str, also_counted: str, limit: NumberOrPercent, hint: str
) -> str:
    """Return the message of the wait reason `Storm`; `scope`: the kind and name of a policy, zone or pool."""
    return (
        f"{unhealthy} of {nodes} nodes of {scope[0]} {scope[1]} have the condition {cause}{also_counted}, more than "
        f"failure.maxUnhealthy {limit} ({limit.of(nodes)}): no drain starts for this condition until fewer "
        f"nodes have it. {hint}"
    )


def blackout(silent: int, nodes: int) -> str:
    """Return the message of the wait reason `StaleView` in a blackout."""
    return (
        f"the Leases of {silent} of {nodes} nodes stopped together: the network or the operator's view of it has failed. "
        "Check the network"
    )
