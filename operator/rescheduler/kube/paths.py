"""Addresses of everything that the operator reads or writes."""

from rescheduler.api import API_VERSION, GROUP

NODES = "/api/v1/nodes"
PODS = "/api/v1/pods"
NAMESPACES = "/api/v1/namespaces"
NODE_LEASES = "kube-node-lease"
"""Namespace of the Leases that kubelets renew, each of its node's name."""
SYSTEM = "kube-system"
"""Namespace of the Lease that all installations share."""
VOLUMES = "/api/v1/persistentvolumes"
ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"
POLICIES = f"/apis/{API_VERSION}/reschedulepolicies"
DRAINS = f"/apis/{API_VERSION}/nodedrains"
POOLS = f"/apis/{API_VERSION}/namespacepools"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DAEMON_SETS = "/apis/apps/v1/daemonsets"
NODE_METRICS = "/apis/metrics.k8s.io/v1beta1/nodes"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def node(name: str) -> str:
    """One Node; its status is at `/status` below."""
    return f"{NODES}/{name}"


def drain(name: str) -> str:
    """One NodeDrain; its status is at `/status` below."""
    return f"{DRAINS}/{name}"


def crd(resource: str) -> str:
    """Name of the CustomResourceDefinition of one of our kinds."""
    return f"{resource}.{GROUP}"


def pool(name: str) -> str:
    """One NamespacePool; its status is at `/status` below."""
    return f"{POOLS}/{name}"


def namespace(name: str) -> str:
    """One Namespace."""
    return f"{NAMESPACES}/{name}"


def admission(resource: str, name: str) -> str:
    """One admission policy or binding."""
    return f"/apis/admissionregistration.k8s.io/v1/{resource}/{name}"


def pod(namespace: str, name: str) -> str:
    """One Pod; evictions go to `/eviction` below."""
    return f"{NAMESPACES}/{namespace}/pods/{name}"


def namespaced(version: str, namespace: str, resource: str) -> str:
    """A kind's objects in one namespace; `version` as in `apps/v1`."""
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{root}/namespaces/{namespace}/{resource}"


def replica_set(namespace: str, name: str) -> str:
    """One ReplicaSet."""
    return f"{namespaced('apps/v1', namespace, 'replicasets')}/{name}"


def budgets(namespace: str) -> str:
    """PodDisruptionBudgets of one namespace."""
    return namespaced("policy/v1", namespace, "poddisruptionbudgets")


def leases(namespace: str) -> str:
    """Leases of one namespace."""
    return namespaced("coordination.k8s.io/v1", namespace, "leases")


def machine(namespace: str, name: str) -> str:
    """One Machine of Cluster API, where this cluster has it."""
    return f"{namespaced('cluster.x-k8s.io/v1beta1', namespace, 'machines')}/{name}"


def events(namespace: str) -> str:
    """Events (core/v1) of one namespace."""
    return namespaced("v1", namespace, "events")
