"""Sentences that the plugin prints: pure functions from facts to text.

A message begins with the object, then says state, cause and next step. An error is one line.
"""

from collections.abc import Sequence

from rescheduler.api import GROUP, names

_LIST_OPERATOR_PODS = "kubectl get pods -A -l app.kubernetes.io/name=rescheduler"

# -- errors -----------------------------------------------------------------------------------------------------------


def api_server_unavailable(url: str, cause: str) -> str:
    """Return the error for an API server that does not answer."""
    return f"the API server at {url} does not answer: {cause}"


def request_failed(url: str, cause: str) -> str:
    """Return the error for a request that failed for another reason than the network."""
    return f"the request to the API server at {url} failed: {cause}"


def request_refused(action: str, message: str, status_code: int) -> str:
    """Return the error for a request that the API server refused. `action`: the words after "cannot"."""
    return f"cannot {action}: {message} (HTTP {status_code})"


def not_an_api_server(url: str, cause: str) -> str:
    """Return the error for an address at which another server answers."""
    return f"the server at {url} is not a Kubernetes API server: {cause}; check `server` in the kubeconfig"


def crd_missing(resource: str) -> str:
    """Return the error for a kind whose CRD is absent."""
    return f"the CRD {resource}.{GROUP} is not installed: {names.INSTALL_HINT}"


def unreadable_object(cause: str) -> str:
    """Return the error for a policy or NodeDrain that this version of the plugin cannot parse."""
    return f"the plugin cannot read an object of {GROUP}: {cause}; use the plugin of the operator's version"


def node_missing(node: str) -> str:
    """Return the error for a node that does not exist."""
    return f"node {node} does not exist: list the nodes with `kubectl get nodes`"


def no_node_selected(selector: str) -> str:
    """Return the error for a label selector that selects no node."""
    return f"no node has the labels {selector}: list the nodes with `kubectl get nodes --show-labels`"


def still_restoring(node: str) -> str:
    """Return the error for a drain request while the last NodeDrain still exists."""
    return f"node {node} is still being restored after its last drain: retry when its NodeDrain is gone"


# -- plan -------------------------------------------------------------------------------------------------------------


CAN_BE_DRAINED = "can be drained"
MAY_BE_DRAINABLE = "may be drainable: only the scheduler can decide for some pods"
CANNOT_BE_DRAINED = "cannot be drained now"


def plan_progress(done: int, total: int) -> str:
    """Return the progress line of a plan of many nodes."""
    return f"planned {done} of {total} nodes"


def plan_total(blocked: int, total: int) -> str:
    """Return the last line of a plan of all nodes."""
    return f"{blocked} of {total} nodes cannot be drained now. Each node is planned on its own."


def settings_source(policy: str, *, policies_exist: bool) -> str:
    """Return which settings a plan uses. `policy`: the name of the winning policy, empty for none."""
    if policy:
        return f"with ReschedulePolicy {policy}"
    if policies_exist:
        return "with default settings: no ReschedulePolicy selects the node, so a request would not drain it"
    return "with default settings: the cluster has no ReschedulePolicy"


def plan_summary(placed: int, staying: int, min_duration: str) -> str:
    """Return the counts of pods in a plan, and the least time of the drain."""
    pods = f"{placed} {'pod fits' if placed == 1 else 'pods fit'} elsewhere"
    return f"{pods}, {staying} {'stays' if staying == 1 else 'stay'}; a drain takes at least {min_duration}"


def misfits_title(count: int) -> str:
    """Return the title of the list of pods that do not fit."""
    return f"Pods that fit on no other node ({count}):"


def would_fit_after_move(pod: str, node: str) -> str:
    """Return that the pod of the row would fit if this pod left its node."""
    return f"would fit if {pod} moved from {node}; set drain.chainMoves to let the drain move it first"


def moves_first(pod: str, node: str) -> str:
    """Return that the drain moves this pod first, so that the pod of the row fits."""
    return f"fits once {pod} has moved from {node}; the drain moves it first (drain.chainMoves)"


def unknown_title(count: int) -> str:
    """Return the title of the list of pods whose fit is unknown."""
    return f"Pods for which only the scheduler can decide ({count}):"


def blockers_title(count: int) -> str:
    """Return the title of the list of expected blockers."""
    return f"Pods that would block the drain ({count}):"


def waiting_for_node_title(count: int) -> str:
    """Return the title of the list of pods that only their own node can have."""
    return (
        f"Pods that no other node can have ({count}). They are evicted within their PodDisruptionBudgets, "
        "and their new pods wait for the node:"
    )


def pending_title(count: int) -> str:
    """Return the title of the list of pods that leave although their new pods find no place."""
    return (
        f"Pods whose new pods find no place ({count}). They are evicted within their PodDisruptionBudgets, "
        "and their new pods stay Pending:"
    )


def staying_title(count: int) -> str:
    """Return the title of the list of pods that a drain leaves, and that are not of a DaemonSet."""
    return f"Pods that stay ({count}):"


REPLACED_FIRST_TITLE = (
    "Pods whose PodDisruptionBudget allows no eviction now. Rescheduler starts a replacement first; "
    "kubectl drain would wait:"
)
SINGLE_REPLICAS_TITLE = "Single-replica Deployments. With plain eviction they are down until the new pod is Ready:"


def opted_out_title(count: int) -> str:
    """Return the title of the list of pods with an opt-out for another tool."""
    return (
        f"Pods that ask another tool not to disrupt them ({count}). "
        "The drain moves them; name the tool in drain.honour, and the drain waits for them:"
    )


# -- drain ------------------------------------------------------------------------------------------------------------


def drain_requested(node: str, other_requests: str) -> str:
    """Return the line for a new request. `other_requests`: the requests that stood before, empty for none."""
    text = f"{node}: drain requested"
    if other_requests:
        text += f"; other requests: {other_requests}. The node is restored when all requests are withdrawn"
    return text


def drain_already_requested(node: str, requests: str) -> str:
    """Return the line for a `Manual` request that stands already."""
    return f"{node}: drain already requested: {requests}"


def following_interrupted(nodes: Sequence[str]) -> str:
    """Return the line for Ctrl-C while `drain` follows drains."""
    if len(nodes) == 1:
        state, watch = "the drain continues. Watch it", f"kubectl get nd {nodes[0]} -w. Cancel it"
    else:
        state, watch = "the drains continue. Watch them", "kubectl reschedule status. Cancel them"
    return f"{', '.join(nodes)}: {state}: {watch}: kubectl reschedule cancel {' '.join(nodes)}"


def drain_ended_early(node: str) -> str:
    """Return the line for a drain that ended before its node was Drained."""
    return f"{node}: the drain was withdrawn before the node was Drained"


def following_timed_out(node: str, span: str) -> str:
    """Return the line for a node that is not Drained within --timeout."""
    return f"{node}: not Drained within {span}; the drain continues. Cancel it: kubectl reschedule cancel {node}"


def restore_hint(nodes: Sequence[str]) -> str:
    """Return the next step after nodes are Drained."""
    one = len(nodes) == 1
    return (
        f"{', '.join(nodes)}: restore the {'node' if one else 'nodes'} after the work: "
        f"kubectl reschedule cancel {' '.join(nodes)}"
    )


def connection_lost(node: str, error: str) -> str:
    """Return the warning while `drain` cannot reach the API server."""
    return f"{node}: {error}; the drain continues, retrying the connection"


def operator_not_running(node: str) -> str:
    """Return the warning if no process renews the Lease of the operator."""
    return (
        f"{node}: no operator is running: the Lease rescheduler is not renewed. "
        f"The drain continues when an operator runs. Check its pods: {_LIST_OPERATOR_PODS}"
    )


def drain_unobserved(node: str, seconds: int) -> str:
    """Return the warning if the operator has not read the NodeDrain. Used if Leases cannot be listed."""
    return f"{node}: the operator has not read the NodeDrain for {seconds} s. Check its pods: {_LIST_OPERATOR_PODS}"


# -- progress of a drain ----------------------------------------------------------------------------------------------

TABLE_TITLES = ("NODE", "PHASE", "PODS MOVED", "", "BLOCKED", "TIME LEFT")
TABLE_TITLES_NARROW = ("NODE", "PHASE", "MOVED", "", "LEFT")
WITHDRAWN_PHASE = "withdrawn"
WITHDRAWN_STAGE = "withdrawn, the node is being restored"
UNOBSERVED_STAGE = "waiting for the operator"


def reason_with_message(reason: str, message: str) -> str:
    """Return the reason and message of the condition `Progressing`."""
    return f"{reason}: {message}"


def moved(progress: str) -> str:
    """Return the count of moved pods. `progress`: as in the status, such as 17/42."""
    return f"{progress} moved"


def waiting_for_replacement(count: int) -> str:
    """Return the count of released pods whose replacement is not Ready."""
    return f"{count} waiting for a replacement"


def waits_for_node(count: int) -> str:
    """Return the count of pods that only their own node can have."""
    return f"{count} {'waits' if count == 1 else 'wait'} for the node"


def pods_waiting_for_node(node: str, count: int, pods: str) -> str:
    """Return the line for the pods of a drain that only their own node can have. `pods`: their names."""
    one = "pod can run on this node only, and its new pod waits for the node"
    several = "pods can run on this node only, and their new pods wait for the node"
    return f"{node}: {count} {one if count == 1 else several}: {pods}"


def blocked(count: int) -> str:
    """Return the count of blocked pods."""
    return f"{count} blocked"


def time_left(span: str) -> str:
    """Return the estimated time until the drain is done."""
    return f"about {span} left"


def blocked_pod(pod: str, blocker_class: str, message: str) -> str:
    """Return the line for a blocked pod. `pod`: namespace/name; `message`: may be empty."""
    return f"  {pod} cannot leave: {blocker_class}" + (f": {message}" if message else "")


def blocked_pod_for(pod: str, blocker_class: str, span: str, message: str) -> str:
    """Return the text for a blocked pod with the time since it is blocked. `span`: may be empty."""
    text = f"{pod} cannot leave: {blocker_class}" + (f" for {span}" if span else "")
    return f"{text}: {message}" if message else text


def more_drains(counts: Sequence[tuple[int, str]]) -> str:
    """Return the text for drains that are not listed. `counts`: number and phase."""
    return f"not shown: {', '.join(f'{count} {phase}' for count, phase in counts)}"


def more_blockers(count: int) -> str:
    """Return the text for blocked pods that are not listed."""
    return f"{count} more {'pod is' if count == 1 else 'pods are'} blocked"


def blocked_pod_hint(hint: str) -> str:
    """Return the line with the next step for a blocked pod."""
    return f"    {hint}"


# -- status -----------------------------------------------------------------------------------------------------------

STATUS_TITLES = ("NODE", "PHASE", "MOVED", "BLOCKED", "LEFT", "AGE", "REQUESTS")
NO_DRAINS = "no drain is requested"
NO_OPERATOR = "no operator is running: its Lease is not renewed, and no drain continues"
OPERATOR_HINT = f"check the pods of the operator: {_LIST_OPERATOR_PODS}"
BLOCKERS_HINT = "list them: kubectl reschedule status -o yaml"


def unread(nodes: str) -> str:
    """Return the problem of NodeDrains that the operator has not read."""
    return f"{nodes}: the operator has not read the NodeDrain"


def waits(nodes: str, count: int, span: str, reason: str) -> str:
    """Return the problem of drains that wait for one reason. `span`: of the longest wait."""
    return f"{nodes}: {'waits' if count == 1 else 'wait'} for {span}: {reason}"


def approve_hint(node: str) -> str:
    """Return the next step for a drain that waits for a gate."""
    return f"if the drain may begin, approve its gate: kubectl reschedule approve {node} GATE"


def restoring(node: str, span: str, message: str) -> str:
    """Return the problem of a node whose restore takes long. `message`: of the operator, may be empty."""
    return f"{node}: is being restored for {span}" + (f": {message}" if message else "")


def slots(policy: str, holders: str, queued: str) -> str:
    """Return which drains hold the slots of a policy, and which wait for one. Both lists may be empty."""
    text = f"slots of ReschedulePolicy {policy}: {f'held by {holders}' if holders else 'free'}"
    return f"{text}; waiting for one: {queued}" if queued else text


# -- pools ------------------------------------------------------------------------------------------------------------

NO_POOLS = "no NamespacePool exists"
RESOURCE_TITLES = ("CPU", "MEMORY")


def pool_problem(pool: str, condition: str, status: str, message: str) -> str:
    """Return the problem that a condition of a pool shows."""
    return f"{pool}: {condition}={status}: {message}"


# -- approve ----------------------------------------------------------------------------------------------------------


def drain_missing(node: str) -> str:
    """Return the error for a node without a NodeDrain."""
    return f"node {node} has no NodeDrain: list the drains with `kubectl reschedule status`"


def gate_unknown(node: str, gate: str, gates: str) -> str:
    """Return the error for a gate that the drain does not have. `gates`: those that it has, may be empty."""
    return f"the drain of {node} has no gate {gate}: " + (f"its gates are {gates}" if gates else "it has no gates")


def no_policy_yet(node: str) -> str:
    """Return the error for a drain without a policy."""
    return f"the drain of {node} has no policy yet, and no gates: retry, or see `kubectl reschedule status`"


def approval(user: str, message: str) -> str:
    """Return the message of the condition of an approved gate. Both arguments may be empty."""
    by = f"approved by {user}" if user else "approved"
    return f"{by}: {message}" if message else by


def approved(node: str, gate: str) -> str:
    """Return the line for an approved gate."""
    return f"{node}: {gate} is approved"


def already_approved(node: str, gate: str) -> str:
    """Return the line for a gate that is True already."""
    return f"{node}: {gate} is already approved"


# -- version ----------------------------------------------------------------------------------------------------------

OPERATOR_ABSENT = "operator: not installed"
CRDS_ABSENT = "CRDs: not installed"


def plugin_version(version: str) -> str:
    """Return the line with the version of the plugin."""
    return f"plugin: {version}"


def operator_version(namespace: str, version: str, image: str, leader: str) -> str:
    """Return the line with the version of an operator. `leader`: the process that leads, empty for none.

    `version` and `image` may be empty.
    """
    state = f"leader {leader}" if leader else "no process leads"
    source = f" ({image})" if image else ""
    return f"operator: {version or 'unknown version'} in namespace {namespace}{source}, {state}"


def crd_version(name: str, served: Sequence[str], version: str) -> str:
    """Return the line with the versions of a CRD. `version`: the release that it is from, may be empty."""
    return f"CRD {name}: serves {', '.join(served)}" + (f", of release {version}" if version else "")


def version_skew(operator: str, plugin: str) -> str:
    """Return the warning for an operator and a plugin of different releases."""
    return f"the operator has version {operator}, and the plugin {plugin}: use the plugin of the operator's version"


def crd_skew(name: str, fields: str) -> str:
    """Return the warning for a CRD that is older than the plugin."""
    return f"the CRD {name} is older than the plugin and lacks {fields}: {names.INSTALL_HINT}"


# -- completion -------------------------------------------------------------------------------------------------------


def completion_usage(shell: str) -> str:
    """Return the comment of the script for a shell."""
    command = f"kubectl reschedule completion {shell}"
    use = f"{command} | source" if shell == "fish" else f"source <({command})"
    return f"# Completion of kubectl-reschedule. Use it in each shell: {use}"


# -- cancel -----------------------------------------------------------------------------------------------------------


def annotation_removed(node: str) -> str:
    """Return the line for the removed annotation of a maintenance request."""
    return f"{node}: removed the annotation {names.MAINTENANCE}"


def nothing_to_cancel(node: str, *, cordoned: bool) -> str:
    """Return the line for a node without any request. `cordoned`: the node is cordoned."""
    text = f"{node}: no drain is requested"
    return f"{text}; the node is cordoned, but not by Rescheduler: kubectl uncordon {node}" if cordoned else text


def already_withdrawn(node: str) -> str:
    """Return the line for a NodeDrain that is already being deleted."""
    return f"{node}: every request is already withdrawn; the operator is restoring the node"


def withdrawn(node: str, requests: str, *, stays_cordoned: bool) -> str:
    """Return the line for a deleted NodeDrain. `stays_cordoned`: the node was cordoned before the drain."""
    text = f"{node}: every request is withdrawn ({requests}); the operator restores the node"
    return f"{text}. The node stays cordoned, because it was cordoned before the drain" if stays_cordoned else text
