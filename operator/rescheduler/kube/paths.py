"""Paths of all API objects that the operator reads or writes."""

from urllib.parse import quote

from rescheduler.api import API_VERSION, GROUP
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube import messages
from rescheduler.kube.client import ApiError

NODES = "/api/v1/nodes"
NODE_PAGE_SIZE = 50
"""Nodes of one page: a raw Node needs 45 kB of memory, and memory that was once in use stays with the process."""
PODS = "/api/v1/pods"
NAMESPACES = "/api/v1/namespaces"
NODE_LEASE_NAMESPACE = "kube-node-lease"
"""Namespace of the Leases that kubelets renew; each Lease has the name of its node."""
SYSTEM_NAMESPACE = "kube-system"
"""Namespace of the Lease that all installations share."""
PERSISTENT_VOLUMES = "/api/v1/persistentvolumes"
VOLUME_ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"
DEVICE_CLASSES = "/apis/resource.k8s.io/v1/deviceclasses"
POLICIES = f"/apis/{API_VERSION}/reschedulepolicies"
DRAINS = f"/apis/{API_VERSION}/nodedrains"
POOLS = f"/apis/{API_VERSION}/namespacepools"
CUSTOM_RESOURCE_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DAEMON_SETS = "/apis/apps/v1/daemonsets"
NODE_METRICS = "/apis/metrics.k8s.io/v1beta1/nodes"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def segment(name: str) -> str:
    """Return an object name as a segment of a path. Raises ApiError for an invalid name: it could change the path.

    The rule is IsValidPathSegmentName of apimachinery, and characters that cannot be printed are invalid too.
    """
    if name in ("", ".", "..") or "/" in name or "%" in name or not name.isprintable():
        raise ApiError("GET", repr(name[:80]), ErrorResponse(400, "InvalidName", messages.invalid_name(), (), 0))
    return quote(name, safe=":")


def node(name: str) -> str:
    """Return the path of a Node; `/status` is below it."""
    return f"{NODES}/{segment(name)}"


def drain(name: str) -> str:
    """Return the path of a NodeDrain; `/status` is below it."""
    return f"{DRAINS}/{segment(name)}"


def crd_name(resource: str) -> str:
    """Return the name of the CustomResourceDefinition of a resource of this operator."""
    return f"{resource}.{GROUP}"


def pool(name: str) -> str:
    """Return the path of a NamespacePool; `/status` is below it."""
    return f"{POOLS}/{segment(name)}"


def namespace(name: str) -> str:
    """Return the path of a Namespace."""
    return f"{NAMESPACES}/{segment(name)}"


def admission_object(resource: str, name: str) -> str:
    """Return the path of an admission policy or of its binding."""
    return f"/apis/admissionregistration.k8s.io/v1/{resource}/{segment(name)}"


def pod(namespace: str, name: str) -> str:
    """Return the path of a Pod; `/eviction` is below it."""
    return f"{NAMESPACES}/{segment(namespace)}/pods/{segment(name)}"


def in_namespace(version: str, namespace: str, resource: str) -> str:
    """Return the path of a resource in one namespace; `version` as in `apps/v1`."""
    return f"{_api_root(version)}/namespaces/{segment(namespace)}/{resource}"


def in_all_namespaces(version: str, resource: str) -> str:
    """Return the path of a resource in all namespaces; `version` as in `apps/v1`."""
    return f"{_api_root(version)}/{resource}"


def _api_root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def replica_set(namespace: str, name: str) -> str:
    """Return the path of a ReplicaSet."""
    return f"{in_namespace('apps/v1', namespace, 'replicasets')}/{segment(name)}"


def stateful_set(namespace: str, name: str) -> str:
    """Return the path of a StatefulSet."""
    return f"{in_namespace('apps/v1', namespace, 'statefulsets')}/{segment(name)}"


def disruption_budgets(namespace: str) -> str:
    """Return the path of the PodDisruptionBudgets of a namespace."""
    return in_namespace("policy/v1", namespace, "poddisruptionbudgets")


def config_map(namespace: str, name: str) -> str:
    """Return the path of a ConfigMap."""
    return f"{in_namespace('v1', namespace, 'configmaps')}/{segment(name)}"


def leases(namespace: str) -> str:
    """Return the path of the Leases of a namespace."""
    return in_namespace("coordination.k8s.io/v1", namespace, "leases")


CLUSTER_API_GROUP = "/apis/cluster.x-k8s.io"
"""Discovery of the Cluster API versions; 404 if the cluster does not have it."""


def machine(version: str, namespace: str, name: str) -> str:
    """Return the path of a Machine of Cluster API; `version` as in `v1beta2`."""
    return f"{in_namespace(f'cluster.x-k8s.io/{version}', namespace, 'machines')}/{segment(name)}"


UPGRADE_PLANS = "/apis/upgrade.cattle.io/v1/plans"
"""Path of the Plans of the system-upgrade-controller in all namespaces."""


def events(namespace: str) -> str:
    """Return the path of the Events (core/v1) of a namespace."""
    return in_namespace("v1", namespace, "events")
