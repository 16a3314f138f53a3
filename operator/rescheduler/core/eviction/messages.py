"""Texts of core.eviction for users: blocker messages and hints, warnings on annotations, and refused writes.

Each function takes facts and returns one text. A message says the state and the cause. A hint says the next step.
docs/reference/blockers.md and docs/reference/nodedrain.md list these texts.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from rescheduler.api import names
from rescheduler.core.eviction.helpers import HELPER_ORDER
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Owner, Pod

# -- pods that stay, or must not leave yet -----------------------------------------------------------------------------


def _delete_command(pod: Pod) -> str:
    return f"kubectl delete pod -n {pod.namespace} {pod.name}"


def unmanaged_message(pod: Pod) -> str:
    """Return why a pod without a controller stays."""
    if pod.owner:
        return f"DaemonSet {pod.owner.name} of this pod is gone, and no controller would recreate this pod"
    return "no controller would recreate this pod"


def unmanaged_hint(pod: Pod) -> str:
    """Return how an unmanaged pod can leave."""
    return f"delete the pod: {_delete_command(pod)}; or set unmanaged: Evict in drain or in a rule"


EMPTY_DIR_MESSAGE = "the data in the emptyDir volume of this pod would be lost"


def empty_dir_hint(pod: Pod) -> str:
    """Return how a pod with an emptyDir volume can leave."""
    return f"save the data, then delete the pod: {_delete_command(pod)}; or set emptyDir: Evict in drain or in a rule"


LOCAL_VOLUME_MESSAGE = "the data of this pod is local to this node; on another node the pod would stay Pending"


def local_volume_hint(pod: Pod) -> str:
    """Return how a pod with a local volume can leave."""
    return (
        f"save the data, then delete the pod and its claim: {_delete_command(pod)}; "
        "or set localVolume: Evict in drain or in a rule, and the pod waits for this node; or add a rule with action: Skip"
    )


WAIT_COMPLETED_MESSAGE = "a rule of the policy lets this pod run until it completes"
WAIT_COMPLETED_HINT = "wait until the pod completes, or change the rule in drain.rules of the policy"


# -- pods that an eviction does not move -------------------------------------------------------------------------------

SKIPPED_BY_RULE = "a rule of the policy skips this pod"
_TOLERATES_CORDON = "this pod tolerates the cordon"
TOLERATING_AND_BOUND = f"{_TOLERATES_CORDON}, and only this node can have it"
TOLERATING_AND_UNREACHABLE = f"{_TOLERATES_CORDON}, and the node is unreachable, so the pod may still be running there"


def came_back_tolerating(owner: Owner, count: int) -> str:
    """Return why a pod that tolerates the cordon stays after its owner's new pods started on the node again."""
    return f"{_TOLERATES_CORDON}, and {count} new pods of {owner.kind} {owner.name} started on this node again"


def came_back_message(owner: Owner, count: int) -> str:
    """Return why a pod that does not tolerate the cordon is not evicted again."""
    return (
        f"{count} new pods of {owner.kind} {owner.name} started on this cordoned node: their controller sets "
        "spec.nodeName, or their scheduler ignores the cordon"
    )


def came_back_hint(pod: Pod, owner: Owner) -> str:
    """Return how the pods of an owner can leave a node onto which they come back."""
    return f"stop or scale down {owner.kind} {owner.name}, or let it leave out this node; then delete the pod: {_delete_command(pod)}"


def do_not_disrupt_message(annotation: str, until: datetime | None) -> str:
    """Return why a protected pod stays; `until` None: the protection has no end."""
    end = f" until {until:%Y-%m-%d %H:%M:%SZ}" if until else ""
    return f"the annotation {annotation} protects this pod{end}"


def do_not_disrupt_hint(pod: Pod) -> str:
    """Return how a protected pod can leave."""
    return (
        "wait, or ask the owner of the pod to remove the annotation: "
        f"kubectl annotate pod -n {pod.namespace} {pod.name} {names.DO_NOT_DISRUPT}-"
    )


def opt_out_hint(pod: Pod, annotation: str, tool: str) -> str:
    """Return how a pod with the opt-out of another tool can leave."""
    return (
        "wait, or ask the owner of the pod to remove the annotation: "
        f"kubectl annotate pod -n {pod.namespace} {pod.name} {annotation}-; or remove {tool} from drain.honour"
    )


def long_grace_period_message(end: datetime) -> str:
    """Return why a Terminating pod with a long grace period is reported."""
    return f"the grace period of this pod lets it run until {end:%Y-%m-%d %H:%MZ}"


def long_grace_period_hint(pod: Pod) -> str:
    """Return how to shorten the grace period of a Terminating pod."""
    return f"wait, or end the pod sooner: {_delete_command(pod)} --grace-period=30"


def stuck_terminating_message(end: datetime, finalizers: Iterable[str]) -> str:
    """Return why a Terminating pod counts as stuck."""
    listed = ", ".join(finalizers)
    # A text with a duration would change, and be written, at each evaluation.
    return f"this pod should have ended at {end:%Y-%m-%d %H:%M:%SZ}" + (
        f", and has the finalizers {listed}" if listed else ""
    )


_HELPER_RULE = f"drain.rules: [{{podSelector: {{matchLabels: {{KEY: VALUE}}}}, order: {HELPER_ORDER}}}]"


def stuck_terminating_hint(pod: Pod) -> str:
    """Return what to check for a pod that stays Terminating."""
    if pod.finalizers:
        return "ask the owners of the finalizers to finish their work"
    return (
        f"check the kubelet and the volumes of the pod: kubectl describe pod -n {pod.namespace} {pod.name}; "
        "if a helper that serves its volumes left first, add a rule for such helpers to the policy: "
        f"{_HELPER_RULE}"
    )


def waiting_for_proof_message(*, has_single_node_volume: bool) -> str:
    """Return why a pod on an unreachable node waits for proof that the boot is dead."""
    why = "its volume can be attached to one node only" if has_single_node_volume else "it must not run twice"
    return f"the node is unreachable, the pod may still be running there, and {why}"


NOT_CONFIRMED_HINT = (
    "wait: the node is checked again; docs/guides/fencing.md lists what proves that the boot of a node is dead"
)


def no_protection(value: str) -> str:
    """Return why a duration in the annotation do-not-disrupt protects no pod."""
    return f"{value!r:.60} is not longer than zero"


def do_not_disrupt_ignored(error: ValueError) -> str:
    """Return the warning on an annotation do-not-disrupt that cannot be parsed."""
    return f"The annotation {names.DO_NOT_DISRUPT} protects nothing: {error}."


def replacement_ignored(value: str, allowed: Iterable[str]) -> str:
    """Return the warning on an annotation `replacement` with an unknown value."""
    return (
        f"The annotation {names.REPLACEMENT} is ignored: its value is {value!r:.60}, and must be one of "
        f"{', '.join(allowed)}."
    )


# -- responses of the API server ---------------------------------------------------------------------------------------

BUDGET_NOT_OBSERVED_HINT = (
    "wait for the disruption controller to catch up; if it does not, check the logs of kube-controller-manager"
)
SEVERAL_BUDGETS_HINT = (
    "narrow the selector of one budget (kubectl get pdb): the API server evicts no pod under two budgets"
)
OVERLOADED_HINT = (
    "check the load and the logs of the API server, and its priority levels for the operator: it is busy or failing"
)
DELEGATED_HINT = (
    "wait until the pod is gone: the webhook moves the workload itself; if it does not, ask the owner of the webhook"
)
ADMISSION_DENIED_HINT = "ask the owner of the webhook or admission policy that the message names"
WEBHOOK_FAILED_HINT = "check the service and the logs of the admission webhook"
RBAC_HINT = "apply the ClusterRole of the chart: the operator lacks this right"
NAMESPACE_TERMINATING_HINT = "wait: the namespace is being deleted, and the pod with it"
POD_CHANGED_HINT = "find out which client keeps writing this pod: it changes between the read and the eviction"
BUDGET_CONTENDED_HINT = "find out which other client evicts pods under this budget: both write it at the same time"
CREDENTIALS_HINT = "check the ServiceAccount and the token of the operator: the API server does not accept them"
TOO_LARGE_HINT = (
    "raise the request limit of the proxy in front of the API server, or connect to the API server without the proxy"
)
NOT_UNDERSTOOD_HINT = "check the logs and the versions of the API server and of any proxy in front of it: one of them rejects this request"
NO_RESPONSE_HINT = (
    "check the load of the API server, the network, and slow admission webhooks: the API server does not answer in time"
)
DELEGATED_SILENTLY_HINT = (
    "look for an admission webhook on pods/eviction that moves pods itself or turns evictions into dry runs"
)


def eviction_without_effect_message(pod: Pod) -> str:
    """Return the state of a pod that is not Terminating although its eviction was accepted."""
    return f"the API server accepted the eviction of {pod.key}, but the pod is not Terminating"


def several_budgets_message(budgets: Iterable[str]) -> str:
    """Return why a pod under several budgets cannot be evicted; `budgets`: their names."""
    return f"this pod is under the PodDisruptionBudgets {' and '.join(budgets)}"


# -- PodDisruptionBudgets ----------------------------------------------------------------------------------------------


def budget_exhausted_message(budget: DisruptionBudget) -> str:
    """Return why a budget allows no eviction now."""
    return f"PodDisruptionBudget {budget.name} needs {budget.needed} healthy pods and has {budget.healthy}"


UNKNOWN_BUDGET_HINT = "wait until more pods of the PodDisruptionBudget are Ready, and check those that are not"


def sync_failed_message(budget: DisruptionBudget) -> str:
    """Return why a budget without a current status allows no eviction."""
    return (
        f"the disruption controller cannot compute PodDisruptionBudget {budget.name} (SyncFailed): {budget.sync_error}"
    )


def sync_failed_hint(budget: DisruptionBudget) -> str:
    """Return how to make a budget computable again."""
    if "scale" in budget.sync_error:
        return "use an integer minAvailable: the kind of the pods' owner has no scale subresource"
    if "controller" in budget.sync_error:
        return "use an integer minAvailable: the pods have no controller that can be scaled"
    return (
        f"fix the cause that the message names, and check {budget.limit or 'the budget'}; "
        "or check the logs of kube-controller-manager"
    )


def budget_not_observed_message(budget: DisruptionBudget) -> str:
    """Return why the status of a budget does not count."""
    return f"PodDisruptionBudget {budget.name} has changed, and its status is not up to date yet"


def budget_misconfigured_hint(budget: DisruptionBudget) -> str:
    """Return what to change in a budget that can never allow an eviction."""
    return (
        f"{budget.remedy} (kubectl edit pdb -n {budget.namespace} {budget.name}): "
        f"all {budget.expected} pods are healthy, and none may be evicted"
    )


def budget_exhausted_hint(budget: DisruptionBudget) -> str:
    """Return what makes a budget allow the next eviction."""
    name = f"PodDisruptionBudget {budget.name}"
    if budget.expected <= 0:
        return f"scale the owner up, or delete the pod by hand: {name} counts no pods, because their owner wants none"
    if budget.healthy >= budget.expected or budget.disrupted:
        return f"wait: {name} allows the next eviction once the pods that are leaving have been replaced"
    return f"wait until more pods of {name} are Ready, and check those that are not"


# -- writes ------------------------------------------------------------------------------------------------------------

FAILED_WRITES: Mapping[str, str] = {
    "cordon": "the node cannot be cordoned, and no pod moves before the cordon",
    "set_metadata": "the drain's labels and annotations cannot be set on the node, and the drain continues without them",
    "taint": "the taint of a waiting node cannot be set, and the drain waits without it",
    "conditions": "Rescheduler's conditions cannot be written on the node, and the drain continues without them",
    "out_of_service": "the out-of-service taint cannot be written",
    "restore": "the node cannot be restored",
    "uncordon": "the node cannot be uncordoned",
    "untaint": "the drain's taints cannot be removed from the node",
    "remove_metadata": "the drain's labels and annotations cannot be removed from the node",
    "annotate_cancelled": (
        "the node cannot be annotated with the cancelled request: remove rescheduler.dev/maintenance from the node"
    ),
    "status": "the status of the NodeDrain cannot be written",
    "annotate": "the NodeDrain cannot be annotated",
    "create": "the NodeDrain cannot be created",
    "update_requests": "the requests of the NodeDrain cannot be changed",
    "delete": "the NodeDrain cannot be deleted",
    "finalizer": "the finalizer of the NodeDrain cannot be removed",
    "reconcile": "the drain cannot continue",
}
"""State of the object, by `WriteOperation` that fails."""

WRITE_RBAC_STEP = "grant the operator the rights of the chart's ClusterRole"
WRITE_TOO_LARGE_STEP = "make the object smaller"
WRITE_WEBHOOK_STEP = "check the service and the logs of the webhook"
WRITE_DENIED_STEP = "change the admission policy or webhook that the message names"
WRITE_CONFLICT_STEP = "find out which other client keeps writing the object"
WRITE_FAILED_STEP = "check the load and the logs of the API server"


def write_not_answered(error: str) -> str:
    """Return the cause and the next step of a write without an answer."""
    return f"the API server does not answer ({error}); check the API server and the network"


def write_refused(code: str, message: str, next_step: str) -> str:
    """Return the cause and the next step of a refused write."""
    return f"{code}: {message}; {next_step}"
