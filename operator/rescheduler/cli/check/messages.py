"""Sentences of `kubectl reschedule check`: pure functions and constants, from facts to text.

`state` says what is the case, `meaning` what it means for a drain, and a next step is an imperative. docs/guides/check.md
explains them.
"""

from collections.abc import Mapping, Sequence

from rescheduler.core.model.messages import listing

_LIST_OPERATOR_PODS = "kubectl get pods -n {} -l app.kubernetes.io/name=rescheduler"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# -- output -----------------------------------------------------------------------------------------------------------

LEVEL_TITLES = {
    "problem": "Problems: they hinder a drain",
    "warning": "Warnings: they can hinder a drain, or cost something during one",
    "note": "Notes: good to know",
    "ok": "Nothing found",
}
MORE_IN_JSON = "-o json lists all"


def headline(kubernetes: str, nodes: int, pods: int, operator: str, *, installed: bool) -> str:
    """Return the first line of the output. `operator`: its version, empty if unknown."""
    state = f"Rescheduler {operator}".rstrip() + (" is installed" if installed else " is not installed")
    return f"Kubernetes {kubernetes}, {_count(nodes, 'node')}, {_count(pods, 'pod')}. {state}."


def more_objects(count: int) -> str:
    """Return the line for the objects that the text output leaves out."""
    return f"and {count} more ({MORE_IN_JSON})"


def total(problems: int, warnings: int) -> str:
    """Return the last line of the output."""
    if not problems and not warnings:
        return "Nothing hinders a drain. Room on other nodes: kubectl reschedule plan --all"
    counts = f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}"
    return f"{counts}. Room on other nodes: kubectl reschedule plan --all"


# -- rights -----------------------------------------------------------------------------------------------------------


def command_not_allowed(command: str) -> str:
    """Return that the user lacks rights for a command of the plugin."""
    return f"you lack rights that `kubectl reschedule {command}` needs"


def ask_for_rights(command: str) -> str:
    """Return whom to ask for the rights of a command."""
    return f"ask an administrator for a ClusterRole with these rights (docs/reference/cli.md, {command})"


def commands_allowed(commands: Sequence[str]) -> str:
    """Return which commands the user may run."""
    return f"your rights suffice for {', '.join(commands)}"


def rights_unknown(error: str) -> str:
    """Return that the API server reviews no rights."""
    return f"your rights are unknown: {error}"


def not_all_readable(count: int) -> str:
    """Return that the check is incomplete."""
    return f"the check is incomplete: {count} {'kind' if count == 1 else 'kinds'} of object cannot be read"


def is_forbidden(answer: str) -> bool:
    """Whether an error of the plugin is about a missing right."""
    return answer.endswith("(HTTP 403)")


def not_readable(what: str, answer: str) -> str:
    """Return what cannot be read. A missing right needs no more words."""
    return f"{what} (forbidden)" if is_forbidden(answer) else f"{what}: {answer}"


# -- features and installation ----------------------------------------------------------------------------------------

WITHOUT_MUTATING_POLICIES = (
    "the API server does not serve MutatingAdmissionPolicy v1",
    "Drains, failures and rebalancing work. NamespacePools do not put new pods into their pools (Enforced=False).",
    "use Kubernetes 1.36 or newer for NamespacePools",
)
WITHOUT_VALIDATING_POLICIES = (
    "the API server does not serve ValidatingAdmissionPolicy v1",
    "Nothing bounds the writes of the operator's own identity, and the chart does not install.",
    "use Kubernetes 1.33 or newer",
)
NOT_INSTALLED = "Rescheduler is not installed: `check` and `plan` work without it"
INSTALL = "see docs/getting-started.md; mode Audit shows decisions and writes nothing"
INSTALL_CRDS = "install the CRDs of your version: kubectl apply -f manifests/crds"
CRD_OLDER_MEANING = "The API server silently drops such fields, and serves no such version: neither the operator nor users can set them."
CRD_NEWER_MEANING = "The plugin does not know these fields."
MATCH_VERSIONS = "use one version of the plugin, the operator and the CRDs"
NO_POLICY = (
    "no ReschedulePolicy exists",
    "No node is drained: a request waits with NoPolicy, and failed nodes are left alone.",
    "apply a ReschedulePolicy, such as manifests/samples/policy-audit.yaml",
)
NODES_WITHOUT_POLICY_MEANING = "They are not drained, also if they fail. The chart leaves out control-plane nodes."
NO_OPERATOR = (
    "the CRDs are installed, but no Deployment of the operator is found",
    "Requests for drains are not answered. An operator that runs outside the cluster is not found here.",
    "install the chart, or remove the CRDs: kubectl delete -f manifests/crds",
)
SEVERAL_OPERATORS_MEANING = (
    "Only one of them acts: the one whose namespace holds Lease kube-system/rescheduler-installation."
)
OPERATOR_NOT_READY_MEANING = "Drains that wait stay as they are, and failed nodes are left alone."


def features_served(kubernetes: str) -> str:
    """Return that the API server has everything that Rescheduler uses."""
    return f"Kubernetes {kubernetes} serves everything that Rescheduler uses"


def crds_absent(count: int) -> str:
    """Return that CRDs are missing."""
    return f"{_count(count, 'CRD')} of Rescheduler {'is' if count == 1 else 'are'} missing"


def version_not_served(crd: str, version: str) -> str:
    """Return that a CRD does not serve the version of the plugin."""
    return f"CRD {crd} does not serve {version}"


def crd_older(crd: str, count: int) -> str:
    """Return that a CRD lacks fields, values or versions."""
    return f"CRD {crd} is older than the plugin: it lacks {count} of its fields and versions"


def crd_newer(crd: str, count: int) -> str:
    """Return that a CRD has unknown fields."""
    return f"CRD {crd} is newer than the plugin: it has {_count(count, 'other field')}"


def unreadable_objects(error: str) -> str:
    """Return that the policies or NodeDrains cannot be read; the defaults then count."""
    return f"policies cannot be read, so default settings count here: {error}"


def nodes_without_policy(count: int) -> str:
    """Return how many nodes no policy selects."""
    return f"no ReschedulePolicy selects {_count(count, 'node')}"


def several_operators(count: int) -> str:
    """Return that several operators are installed."""
    return f"{count} operators are installed"


def operator_not_ready(operator: str, replicas: int) -> str:
    """Return that no pod of the operator is Ready."""
    return f"operator {operator} is not Ready: 0 of {_count(replicas, 'pod')}"


def no_leader(operator: str) -> str:
    """Return that no process of the operator leads."""
    return f"operator {operator} has Ready pods, but no process renews its Lease"


def operator_leads(namespaces: Sequence[str]) -> str:
    """Return that an operator works whose Deployment is not found."""
    return f"an operator leads in namespace {', '.join(namespaces)}; no Deployment of it is found"


def look_at_operator(namespace: str) -> str:
    """Return how to look at the pods of the operator."""
    return f"{_LIST_OPERATOR_PODS.format(namespace)}; or write a report: kubectl reschedule report"


def version_skew(plugin: str, operator: str, version: str) -> str:
    """Return that plugin and operator have different versions."""
    return f"the plugin is {plugin}, operator {operator} is {version}"


def operator_ready(operator: str, version: str, ready: int) -> str:
    """Return that the operator works."""
    return f"operator {operator} {version} has {_count(ready, 'Ready pod')}"


# -- budgets and pods -------------------------------------------------------------------------------------------------

_BUDGET_STATES = {
    "BudgetMisconfigured": ("can never allow an eviction", "can never allow an eviction"),
    "SeveralBudgets": ("covers one pod: each eviction is refused", "cover one pod each: each eviction is refused"),
    "BudgetExhausted": ("allows no eviction now", "allow no eviction now"),
    "BudgetNotObserved": (
        "is not observed by the disruption controller",
        "are not observed by the disruption controller",
    ),
}
BUDGET_MEANINGS = {
    "problem": "A drain waits for these pods until somebody changes the budget.",
    "warning": "A drain waits for these pods until their budget allows it.",
}
BUDGETS_ALLOW = "each PodDisruptionBudget with pods allows an eviction"
REPLACED_FIRST_MEANING = (
    "kubectl drain waits for them. Rescheduler starts a new pod first, and then evicts the old one."
)
UNUSED_BUDGETS_MEANING = "They protect nothing: a label may have changed."
NO_BLOCKED_PODS = "no pod would block a drain by itself"
HOST_DATA_MEANING = "A new pod on another node starts without that data. Without room elsewhere, it waits for its node."
OPTED_OUT_MEANING = "A drain moves them anyway. Rebalancing and pools leave them alone."
OPTED_OUT_NEXT_STEP = "name the tool in drain.honour of the policy, and a drain waits for them"
NODE_NAME_MEANING = (
    "Their new pods come back to the drained node, past the scheduler. After three returns they are blockers, and the node "
    "is not Drained."
)
NODE_NAME_NEXT_STEP = "replace spec.nodeName in the template by a nodeSelector"
BOUND_MEANING = "They are evicted within their budgets, and their new pods wait until the node is back."
AWAY_MEANING = "Each is away from its eviction until its new pod is Ready, as with kubectl drain."
AWAY_NEXT_STEP = "warn their owners, or run two replicas, or strategy RollingUpdate with maxSurge above 0"
REPLACED_SINGLE_MEANING = "kubectl drain takes them away for a while. Rescheduler starts the new pod first."
NO_SINGLE_REPLICAS = "no Deployment and no StatefulSet has a single replica"
_GAP_REASONS = {
    "StatefulSet": "a StatefulSet starts its new pod only after the old one",
    "NoSurge": "its Deployment allows no additional pod",
    "Pinned": "only its node can have it",
    "Never": "replacement is Never",
    "Mover": "another tool moves it",
    "ExclusiveVolume": "its volume can be attached to one node only",
    "HostPath": "it mounts a hostPath",
    "NotReady": "it is not Ready",
    "SeveralBudgets": "several PodDisruptionBudgets cover it",
    "NotBlocked": "replacement is WhenBlocked, and its budget allows the eviction",
}


def budget_names(namespace: str, budgets: Sequence[str]) -> str:
    """Return the names of the budgets that cover a pod."""
    return f"{namespace}/{' + '.join(budgets)}"


def budgets_refuse(blocker_class: str, count: int) -> str:
    """Return that budgets refuse evictions, by the class of the blocker. For `SeveralBudgets`, groups are counted."""
    noun = "PodDisruptionBudget"
    if blocker_class == "SeveralBudgets":
        noun = f"{'group' if count == 1 else 'groups'} of {noun}s"
    elif count != 1:
        noun += "s"
    state = _BUDGET_STATES.get(blocker_class, ("refuses evictions", "refuse evictions"))[count != 1]
    return f"{count} {noun} {state} ({blocker_class})"


def next_step_for(name: str, hint: str) -> str:
    """Return the next step for the first of several objects."""
    return f"for {name}: {hint}"


def replaced_first(count: int) -> str:
    """Return how many pods leave only because their replacement comes first."""
    return f"the budget of {_count(count, 'pod')} allows no eviction, and a replacement can come first"


def unused_budgets(count: int) -> str:
    """Return how many budgets select no pod."""
    return f"{_count(count, 'PodDisruptionBudget')} cover{'s' if count == 1 else ''} no pod"


def blocked_pods(blocker_class: str, count: int) -> str:
    """Return how many pods would block the drain of their node."""
    return f"{_count(count, 'pod')} would block the drain of {'its' if count == 1 else 'their'} node ({blocker_class})"


def on_node(pod: str, node: str) -> str:
    """Return a pod with its node."""
    return f"{pod} on {node}"


def bound_pods(count: int) -> str:
    """Return how many pods only their own node can have."""
    return f"{_count(count, 'pod')} can run on {'its' if count == 1 else 'their'} own node only"


def host_data_pods(count: int) -> str:
    """Return how many pods may write data to a hostPath."""
    return f"{_count(count, 'pod')} may have data in a hostPath of {'its' if count == 1 else 'their'} node"


def opted_out_pods(count: int) -> str:
    """Return how many pods ask other tools not to disrupt them."""
    return f"{_count(count, 'pod')} ask{'s' if count == 1 else ''} other tools not to disrupt {'it' if count == 1 else 'them'}"


def workloads_with_node_name(count: int) -> str:
    """Return how many templates name a node."""
    return f"{_count(count, 'workload')} set{'s' if count == 1 else ''} spec.nodeName in the template"


def gap_reason(reason: str) -> str:
    """Return why a single replica is not replaced first, by `decisions.ineligible_reason`."""
    return _GAP_REASONS.get(reason, reason)


def single_replicas_away(count: int) -> str:
    """Return how many single replicas are away during a drain."""
    return f"{_count(count, 'single replica')} {'is' if count == 1 else 'are'} away during a drain"


def single_replicas_replaced(count: int) -> str:
    """Return how many single replicas are replaced first."""
    return f"{_count(count, 'single replica')} move{'s' if count == 1 else ''} without a gap"


# -- admission --------------------------------------------------------------------------------------------------------

NO_HOOKS = "no webhook and no admission policy of others hears of a drain"
ADMISSION_TEXTS: Mapping[str, tuple[str, str]] = {
    "evictions": (
        (
            "They hear of each eviction. One may refuse it, or move the pod itself: the drain waits with AdmissionDenied or "
            "Delegated, and keeps asking."
        ),
        "find out what they do with evictions before the first drain",
    ),
    "updates of pods": (
        (
            "They hear of each release: it changes the controller of a pod and one annotation, no label and no spec. If one "
            "refuses, the pod is evicted within its budget, without a replacement first."
        ),
        "allow such updates to ServiceAccount rescheduler in rescheduler-system",
    ),
    "new pods": ("They hear of each replacement. If one refuses it, the blocker quotes the refusal.", ""),
    "placements of pods": ("They hear of the placement of each replacement. If one refuses, it stays Pending.", ""),
    "updates of nodes": ("They hear of each cordon. If one refuses, the drain does not begin.", ""),
}


def hooks_on(requests: str, count: int) -> str:
    """Return how many webhooks and policies hear of a kind of request."""
    return f"{count} {'webhook or policy hears' if count == 1 else 'webhooks and policies hear'} of {requests}"


def webhook_without_endpoints(webhook: str, service: str) -> str:
    """Return that a webhook with failurePolicy Fail cannot be asked."""
    return f"{webhook} has failurePolicy Fail, and its Service {service} has no ready endpoint"


def refused_requests(requests: Sequence[str]) -> str:
    """Return which requests the API server refuses without the webhook."""
    return f"The API server refuses: {listing(requests)}."


def start_webhook(namespace: str, service: str) -> str:
    """Return how to look for the endpoints of a Service."""
    return (
        "start its pods, or remove the configuration: "
        f"kubectl get endpointslices -n {namespace} -l kubernetes.io/service-name={service}"
    )


# -- neighbours -------------------------------------------------------------------------------------------------------

NO_NEIGHBOURS = "no known tool drains nodes, moves pods or prunes objects here"
HELD_NODES_MEANING = "Drains of these nodes wait with OwnedElsewhere."
_OWN_MARK = "A drain waits with OwnedElsewhere while it works on the node."
NEIGHBOUR_TEXTS: Mapping[str, tuple[str, str]] = {
    "kured": (
        "It cordons, drains and reboots nodes by itself, and leaves no mark that Rescheduler reads. Two drains can run at once.",
        "let one of the two drain: keep its nodes out of nodeSelector of the policy, or annotate nodes from a reboot job",
    ),
    "node termination handler": (
        "It cordons and drains nodes that the provider is about to stop, within budgets, without a replacement first.",
        "let one of the two drain: keep these nodes out of nodeSelector of the policy",
    ),
    "Draino": (
        "It cordons and drains nodes by their conditions, without a replacement first.",
        "list its conditions in failure.conditions or maintenance.conditions of the policy, and remove it",
    ),
    "descheduler": (
        "It evicts pods by itself, within budgets, also during a drain. With rebalance.enabled, both move pods.",
        "let one of the two even nodes out: leave rebalance off (the default), or remove the descheduler",
    ),
    "Karpenter": (
        (
            "It drains and deletes nodes by itself. A drain waits while it removes the node, and a node in maintenance is kept "
            "from it."
        ),
        "",
    ),
    "cluster-autoscaler": (
        "It deletes empty nodes. A drain waits while it removes the node, and a node in maintenance is kept from it.",
        "",
    ),
    "system-upgrade-controller": (f"It cordons and drains nodes for its Plans. {_OWN_MARK}", ""),
    "Node Maintenance (medik8s)": (f"It drains nodes that have a NodeMaintenance. {_OWN_MARK}", ""),
    "medik8s remediation": (
        f"It remediates unhealthy nodes: it fences or reboots them. {_OWN_MARK}",
        "choose which of the two acts on failed nodes: failure.enabled in the policy",
    ),
    "OpenShift Machine Config Operator": (f"It drains and reboots nodes for updates. {_OWN_MARK}", ""),
    "Cluster API": (f"It drains and deletes nodes of Machines. {_OWN_MARK}", ""),
    "Gardener machine-controller-manager": (f"It drains and deletes nodes of Machines. {_OWN_MARK}", ""),
    "node-problem-detector": (
        "It reports problems as node conditions. Rescheduler acts on a condition only if a policy lists it.",
        "list conditions in failure.conditions or maintenance.conditions of the policy",
    ),
    "Vertical Pod Autoscaler": (
        "It evicts or resizes pods by itself, within budgets. A plan judges new pods by the template of their owner.",
        "",
    ),
    "KubeVirt": (
        "It moves virtual machines by live migration when they are evicted. The drain waits with Delegated.",
        "make sure that they can migrate: kubectl get vmi -A -o wide",
    ),
    "Strimzi": (
        "Budgets of its pods may allow no eviction. Its Drain Cleaner hears of evictions and rolls the pods.",
        "install the Strimzi Drain Cleaner",
    ),
    "Paguro": ("It moves marked pods itself when they are evicted. The drain waits with Delegated.", ""),
    "CloudNativePG": (
        "The budget of a primary allows no eviction. A cordon lets it promote another instance. With one instance it blocks.",
        "for clusters with one instance: set enablePDB: false, or add an instance",
    ),
    "Longhorn": (
        "Its budgets keep instance-manager pods until no volume needs the node. They leave last.",
        "check Longhorn's setting node-drain-policy",
    ),
    "Rook": ("Its budgets let one failure domain of Ceph be down at a time. OSDs wait for their node.", ""),
    "Argo CD": (
        (
            "It leaves released pods alone, because they have a controller. With selfHeal it removes the label "
            "rescheduler.dev/pool from namespaces that it manages."
        ),
        "with NamespacePools: let the Application ignore that label (docs/guides/coexistence.md)",
    ),
    "Argo Rollouts": ("Pods of a Rollout are evicted within their budgets, without a replacement first.", ""),
    "Flux": ("It prunes by its own inventory, and leaves released pods and fields of others alone.", ""),
    "Kyverno": (
        (
            "Its rules on pods hear of releases and new pods. A rule about controllers of pods sees the Deployment as "
            "controller of a released pod."
        ),
        "",
    ),
    "Gatekeeper": (
        (
            "Its constraints on pods hear of releases and new pods. A constraint about controllers of pods sees the Deployment "
            "as controller of a released pod."
        ),
        "",
    ),
    "Kueue": (
        (
            "Its queues gate new pods. A replacement that is not admitted in time is given up, and the pod is evicted within its "
            "budget."
        ),
        "",
    ),
    "OpenKruise": ("A PodUnavailableBudget refuses evictions by a webhook. The drain waits, and quotes it.", ""),
}


def served_group(group: str) -> str:
    """Return the mark of a tool whose API the API server serves."""
    return f"API {group}"


def running_pod(pod: str) -> str:
    """Return the mark of a tool whose image a pod runs."""
    return f"pod {pod}"


def neighbour(name: str, mark: str) -> str:
    """Return that a tool is there, and how it is recognised."""
    return f"{name} is there ({mark})"


def held_nodes(count: int) -> str:
    """Return how many nodes other controllers hold or remove now."""
    return f"another controller holds or removes {_count(count, 'node')} now"
