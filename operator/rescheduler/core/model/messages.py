"""User-facing sentences about objects of the cluster, and lists in such sentences."""

from collections.abc import Mapping, Sequence

NO_MESSAGE = "no message"
NODE_DELETING = "the Node is being deleted"
NOT_READY_TO_START_CONTAINERS = "the kubelet has not set up the volumes and the network of the pod"


def listing(items: Sequence[str], limit: int = 10) -> str:
    """Return the first items, and the number of the others."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def budget_remedy(budget: str, limit: str) -> str:
    """Return how to let a budget allow an eviction; `limit`: such as "minAvailable 3", empty if it has none.

    More replicas do not help `minAvailable: 100%`.
    """
    field, _, value = limit.partition(" ")
    if field == "maxUnavailable":
        return f"raise {limit} of PodDisruptionBudget {budget}"
    replicas = "" if value == "100%" else ", or add replicas"
    return f"lower {limit or 'minAvailable'} of PodDisruptionBudget {budget}{replicas}"


def node_owned(owner: str, claim: str, mark: str) -> str:
    """Return which controller removes or holds the node, and by which mark on the Node it is recognised."""
    return f"{owner} {claim} ({mark})"


def machine_deleting(machine: str) -> str:
    """Return that Cluster API is deleting the Machine of the node."""
    return f"Cluster API is deleting the Machine {machine}"


def machine_marked_for_deletion(machine: str, annotation: str) -> str:
    """Return that an annotation marks the Machine of the node for deletion."""
    return f"the Machine {machine} is marked for deletion ({annotation})"


def machine_updating(machine: str, annotation: str) -> str:
    """Return that Cluster API updates the Machine of the node in place."""
    return f"Cluster API is updating the Machine {machine} in place ({annotation})"


def node_upgraded(plan: str) -> str:
    """Return that the system-upgrade-controller upgrades the node."""
    return f"the system-upgrade-controller is upgrading the node (Plan {plan}, status.applying)"


def node_leased(holder: str, lease_namespace: str) -> str:
    """Return that another operator holds the node by a Lease."""
    return f"{holder} holds the node by its Lease in {lease_namespace}"


def volume_with_unknown_operator(volume: str) -> str:
    """Return why only the scheduler can decide where a volume can be used."""
    return f"the node affinity of volume {volume} has an operator that Rescheduler does not know"


def claim_without_known_volume(claim: str) -> str:
    """Return that the volume of a claim is unknown."""
    return f"claim {claim} is not bound to a known volume"


def container_waits(container: str, reason: str, message: str) -> str:
    """Return why a container waits, in the words of the kubelet."""
    return f"container {container} waits ({reason})" + (f": {message}" if message else "")


def container_ended(container: str, exit_code: int) -> str:
    """Return that a container does not keep running."""
    return f"container {container} has ended with exit code {exit_code}"


def version_not_served(crds: Sequence[str], version: str, hint: str) -> str:
    """Return that CRDs do not serve the version that the operator uses; `hint`: what to install."""
    return f"the CRDs {', '.join(crds)} do not serve {version}: {hint}"


def outdated_crds(missing: Mapping[str, Sequence[str]], hint: str) -> str:
    """Return which CRDs are older than the operator, and which of its fields they lack; `hint`: how to upgrade them."""
    crds = (f"the CRD {crd} lacks {listing(fields, 5)}" for crd, fields in missing.items())
    return f"{'; '.join(crds)}: they are older than the operator, and the API server does not know these. Upgrade them: {hint}"
