"""Texts of the Events of a drain, and of the reasons to wait that need a live read.

Each function takes facts and returns a text. A text states the state, the cause and the next step, in this order.
"""

from collections.abc import Iterable
from datetime import timedelta

from rescheduler.api import names
from rescheduler.api.policies import OnTimeout
from rescheduler.api.scalars import format_duration
from rescheduler.core.drain.messages import timeout_effect

_OUT_OF_SERVICE = f"{names.OUT_OF_SERVICE_TAINT_KEY}:NoSchedule"

# -- phases and the cordon --------------------------------------------------------------------------------------------

CORDONED_AGAIN = (
    "Somebody uncordoned the node during the drain: it is cordoned again, once. Withdraw the request to stop the drain"
)
DRAIN_BEGUN = "Pods are being moved off the node"
LEFT_CORDONED = (
    "The NodeDrain was force-deleted, so it is unknown who cordoned this node. The node stays cordoned: "
    "run `kubectl uncordon` if nobody else needs the cordon"
)


def cordoned(requests: Iterable[tuple[str, str]]) -> str:
    """Return the text of `Cordoned`, with the reason and message of each request."""
    causes = "; ".join(f"{reason}: {message}" if message else reason for reason, message in requests)
    return f"Node cordoned for a drain ({causes})"


def restored(*, stays_cordoned: bool) -> str:
    """Return the text of `Restored`."""
    kept = " (the node stays cordoned: somebody else cordoned it)" if stays_cordoned else ""
    return f"Nothing of Rescheduler is left on the node{kept}"


def drain_waits(message: str) -> str:
    """Return the text of an Event about a wait."""
    return f"The drain waits: {message}"


def drain_blocked(progress: str, message: str) -> str:
    """Return the text of `Blocked`."""
    return f"No pod is leaving ({progress} pods have left): {message}"


def drain_finished(progress: str, staying: str = "") -> str:
    """Return the text of `Drained`; `staying`: the pods that stay, with their reasons."""
    return f"Drained: {progress} pods have left" + (f"; {staying}" if staying else "")


def chain_move_begun(pod: str, node: str, for_pod: str) -> str:
    """Return the text of `ChainMove`."""
    return f"Moving pod {pod} off node {node} first, so that pod {for_pod} has room there"


def chain_move_failed(pod: str, node: str, cause: str) -> str:
    """Return the text of `ChainMoveFailed`."""
    return f"Pod {pod} stays on node {node}, and the drain continues without its move: {cause}"


def drain_stepped_back(message: str) -> str:
    """Return the text of `SteppedBack`."""
    return f"Uncordoned again: {message}"


def drain_timed_out(timeout: timedelta, on_timeout: OnTimeout) -> str:
    """Return the text of `TimedOut`."""
    restore = ", and the node is restored" if on_timeout is OnTimeout.CANCEL else ""
    return f"The timeout of {format_duration(timeout)} has passed: {timeout_effect(on_timeout)}{restore}"


def node_is_gone(node: str, *, replaced: bool) -> str:
    """Return the text of `NodeGone`."""
    cause = "another machine has its name now" if replaced else "it was deleted"
    return f"Node {node} is gone ({cause}): this drain ends"


# -- pods and volumes -------------------------------------------------------------------------------------------------


def pod_blocked(node: str, message: str, hint: str) -> str:
    """Return the text of a blocker."""
    return f"Cannot leave node {node}: {message}. {hint}"


def owned_pod_event(pod: str, text: str) -> str:
    """Return the text of an Event of the pod, for the owner of the pod."""
    return f"Pod {pod}: {text}"


def not_replaced_first(node: str, message: str, hint: str) -> str:
    """Return the text of `NotReplacedFirst`."""
    return f"Node {node} is drained, and {message}. {hint}"


def released_pod_removed(pod: str) -> str:
    """Return the text of `ReleasedPodRemoved`."""
    return (
        f"Pod {pod} was released and somebody else removed it before its replacement was Ready: it does not count as "
        "moved. Find out who deletes pods of this workload; the API server's audit log names them"
    )


def volume_stuck(volume: str) -> str:
    """Return the text of `VolumeStuck`."""
    return (
        f"PersistentVolume {volume} is still attached to the node though no pod on the node uses it: the drain no "
        "longer waits for it. Check its VolumeAttachment and the CSI driver"
    )


# -- fencing ----------------------------------------------------------------------------------------------------------


def attestation_refused(cause: str, hint: str) -> str:
    """Return the text of `FencedRefused`."""
    return f"The annotation {names.FENCED} is not taken as proof: {cause}. {hint}"


def taken_out_of_service(boot_id: str) -> str:
    """Return the text of `OutOfService`."""
    return (
        f"Boot {boot_id} is proven dead: the node has the taint {_OUT_OF_SERVICE}, so that its pods are removed and "
        "its volumes detached"
    )


def returned_to_service(*, rebooted: bool) -> str:
    """Return the text of `InService`."""
    cause = "the node has rebooted" if rebooted else "no pod there is Terminating and no volume is attached"
    return f"Removed the taint {names.OUT_OF_SERVICE_TAINT_KEY}: {cause}"


def left_out_of_service(node: str) -> str:
    """Return the text of `LeftOutOfService`."""
    return (
        f"The taint {_OUT_OF_SERVICE} stays after the uninstall of Rescheduler: its boot was reported dead, and the "
        f"node has not rebooted. After a reboot: kubectl taint node {node} {_OUT_OF_SERVICE}-"
    )


def returned_without_reboot(boot_id: str) -> str:
    """Return the text of `ReturnedWithoutReboot`."""
    return (
        f"The node is back with boot {boot_id}, which was reported dead: its containers never stopped, so pods that "
        "were started elsewhere ran twice. Check the data of the moved pods"
    )


def running_twice(pod: str, node: str, replaced_pod: str, replaced_node: str) -> str:
    """Return the text of `RunningTwice`."""
    return (
        f"Pod {pod} runs on node {node} and replaces {replaced_pod}, whose containers on {replaced_node} never "
        "stopped: check its data"
    )


# -- input that is refused --------------------------------------------------------------------------------------------


def maintenance_refused(node: str) -> str:
    """Return the text of `MaintenanceRefused`."""
    return (
        'The annotation rescheduler.dev/maintenance has the value "false", which is refused: the presence of the '
        "annotation is the request. To end the maintenance, remove the annotation: "
        f"kubectl annotate node {node} rescheduler.dev/maintenance-"
    )


def window_ignored(error: str) -> str:
    """Return the text of `WindowIgnored`."""
    return f"A window never opens: {error}"


UNREADABLE_OBJECT_IGNORED = "Rescheduler does nothing for it, and changes nothing that it holds"
UNREADABLE_POLICY_IGNORED = "it decides for no node, and it is unknown which nodes it selects"


def unreadable(kind: str, name: str, reason: str, *, last_version_kept: bool, without_version: str) -> str:
    """Return the text of `Unreadable`; `without_version`: what follows if no version was ever readable."""
    effect = "its last readable version still applies" if last_version_kept else without_version
    return (
        f"{kind} {name} cannot be read by this version of Rescheduler ({reason}): {effect}. Correct the object, or run "
        "the version that wrote it"
    )


# -- reasons to wait --------------------------------------------------------------------------------------------------

FENCED_BOOT_RETURNED = (
    "the boot that was reported dead is back: the node stays cordoned and out of service until no pod there is "
    "Terminating and no volume is attached"
)
TAINT_JUST_REMOVED = "the node was out of service until just now: no pod moves for a minute"
NODE_REBOOTED = "the node has rebooted: its pods restart in place, and no pod moves for now"


def owned_elsewhere(owner: str) -> str:
    """Return the message of `OwnedElsewhere`."""
    return f"{owner}: Rescheduler leaves the node to it"


# -- proof ------------------------------------------------------------------------------------------------------------

FAILURE_DISABLED_HINT = "failure.enabled is false: wait for the node to return"
FORCE_NEVER_HINT = (
    "failure.force is Never: wait for the node to return, or delete the Node when its machine no longer exists"
)
LEASE_NOT_SILENT = "its Lease has not been silent for long enough: its kubelet may be alive"
VIEW_UNRELIABLE = "the view of the nodes is unreliable now"
PROOF_LOST = "its node is no longer proven dead"
NODE_CHANGED = "its node has changed since the decision"


def lease_unreadable(error: object) -> str:
    """Return why a proof does not count: the Lease cannot be read."""
    return f"its Lease cannot be read ({error})"


# -- errors of the operator -------------------------------------------------------------------------------------------


def internal_error(error: Exception) -> str:
    """Return the message of `InternalError`."""
    return (
        f"internal error in the operator ({type(error).__name__}): it retries at least once a minute; find task.failed "
        "in its log and report the error"
    )
