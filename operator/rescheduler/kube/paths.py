"""Addresses of everything that the operator reads or writes."""

from urllib.parse import quote

from rescheduler.api import API_VERSION, GROUP
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube.client import ApiError

NODES = "/api/v1/nodes"
PODS = "/api/v1/pods"
NAMESPACES = "/api/v1/namespaces"
NODE_LEASE_NAMESPACE = "kube-node-lease"
"""Namespace of the Leases that kubelets renew, each of its node's name."""
SYSTEM_NAMESPACE = "kube-system"
"""Namespace of the Lease that all installations share."""
PERSISTENT_VOLUMES = "/api/v1/persistentvolumes"
VOLUME_ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"
POLICIES = f"/apis/{API_VERSION}/reschedulepolicies"
DRAINS = f"/apis/{API_VERSION}/nodedrains"
POOLS = f"/apis/{API_VERSION}/namespacepools"
CUSTOM_RESOURCE_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DAEMON_SETS = "/apis/apps/v1/daemonsets"
NODE_METRICS = "/apis/metrics.k8s.io/v1beta1/nodes"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def segment(name: str) -> str:
    """One name as a part of a path. Raises ApiError for what is none: the server would look elsewhere, or nowhere.

    The rule is the API server's own (apimachinery, IsValidPathSegmentName), without what cannot be printed.
    """
    if name in ("", ".", "..") or "/" in name or "%" in name or not name.isprintable():
        raise ApiError("GET", repr(name[:80]), ErrorResponse(400, "InvalidName", "this is no name of an object", (), 0))
    return quote(name, safe=":")


def node(name: str) -> str:
    """One Node; its status is at `/status` below."""
    return f"{NODES}/{segment(name)}"


def drain(name: str) -> str:
    """One NodeDrain; its status is at `/status` below."""
    return f"{DRAINS}/{segment(name)}"


def crd_name(resource: str) -> str:
    """Name of the CustomResourceDefinition of one of our kinds."""
    return f"{resource}.{GROUP}"


def pool(name: str) -> str:
    """One NamespacePool; its status is at `/status` below."""
    return f"{POOLS}/{segment(name)}"


def namespace(name: str) -> str:
    """One Namespace."""
    return f"{NAMESPACES}/{segment(name)}"


def admission_object(resource: str, name: str) -> str:
    """One admission policy or binding."""
    return f"/apis/admissionregistration.k8s.io/v1/{resource}/{segment(name)}"


def pod(namespace: str, name: str) -> str:
    """One Pod; evictions go to `/eviction` below."""
    return f"{NAMESPACES}/{segment(namespace)}/pods/{segment(name)}"


def in_namespace(version: str, namespace: str, resource: str) -> str:
    """A kind's objects in one namespace; `version` as in `apps/v1`."""
    return f"{_api_root(version)}/namespaces/{segment(namespace)}/{resource}"


def in_all_namespaces(version: str, resource: str) -> str:
    """A kind's objects in all namespaces."""
    return f"{_api_root(version)}/{resource}"


def _api_root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def replica_set(namespace: str, name: str) -> str:
    """One ReplicaSet."""
    return f"{in_namespace('apps/v1', namespace, 'replicasets')}/{segment(name)}"


def disruption_budgets(namespace: str) -> str:
    """PodDisruptionBudgets of one namespace."""
    return in_namespace("policy/v1", namespace, "poddisruptionbudgets")


def leases(namespace: str) -> str:
    """Leases of one namespace."""
    return in_namespace("coordination.k8s.io/v1", namespace, "leases")


CLUSTER_API_GROUP = "/apis/cluster.x-k8s.io"
"""What the server says of the versions of Cluster API, if this cluster has it."""


def machine(version: str, namespace: str, name: str) -> str:
    """One Machine of Cluster API; `version` as in `v1beta2`."""
    return f"{in_namespace(f'cluster.x-k8s.io/{version}', namespace, 'machines')}/{segment(name)}"


def events(namespace: str) -> str:
    """Events (core/v1) of one namespace."""
    return in_namespace("v1", namespace, "events")
