"""Checks before the start: the API server answers, and RBAC allows every call of the operator.

Each failed check becomes one line with the cause and the next step. Missing CRDs do not stop the start. The operator
must still return the released pods of an earlier run, and the CRDs may be installed later.
"""

import asyncio
from dataclasses import dataclass

from rescheduler.api import GROUP
from rescheduler.core.pools import admission_policies
from rescheduler.kube import messages, paths
from rescheduler.kube.client import ApiError, Client, ConfigError, UnreachableError
from rescheduler.kube.leader_election import LEASE_NAME, SHARED_LEASE_NAME


@dataclass(frozen=True, slots=True)
class RbacPermission:
    """Verb on a resource; `namespace` and `name` are empty if the permission is for all of them."""

    group: str
    resource: str
    verb: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        name = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {name}" + (f" in namespace {self.namespace}" if self.namespace else "")


def _permissions(group: str, resource: str, verbs: str) -> tuple[RbacPermission, ...]:
    return tuple(RbacPermission(group, resource, verb) for verb in verbs.split())


REQUIRED_PERMISSIONS: tuple[RbacPermission, ...] = (
    *_permissions("", "nodes", "get list watch patch"),
    *_permissions("", "nodes/status", "patch"),
    *_permissions("", "pods", "list watch patch delete"),
    *_permissions("", "pods/status", "patch"),
    *_permissions("", "pods/eviction", "create"),
    *_permissions("", "events", "create patch"),
    *_permissions("", "namespaces", "get list watch patch"),
    *_permissions("", "persistentvolumeclaims", "list watch"),
    *_permissions("", "persistentvolumes", "list watch"),
    *_permissions("storage.k8s.io", "volumeattachments", "list watch"),
    *_permissions("resource.k8s.io", "deviceclasses", "list"),
    *_permissions("batch", "jobs", "list watch"),
    *_permissions("apps", "deployments", "list watch"),
    *_permissions("apps", "daemonsets", "list watch"),
    *_permissions("apps", "replicasets", "get list watch"),
    *_permissions("apps", "statefulsets", "get"),
    *_permissions("policy", "poddisruptionbudgets", "list watch"),
    *_permissions("coordination.k8s.io", "leases", "get"),
    *_permissions("cluster.x-k8s.io", "machines", "get"),
    *_permissions("upgrade.cattle.io", "plans", "list"),
    *_permissions("metrics.k8s.io", "nodes", "list"),
    *(
        RbacPermission("apiextensions.k8s.io", "customresourcedefinitions", "list", name=paths.crd_name(resource))
        for resource in ("namespacepools", "nodedrains", "reschedulepolicies")
    ),
    *_permissions(GROUP, "reschedulepolicies", "list watch"),
    *_permissions(GROUP, "namespacepools", "get list watch patch"),
    *_permissions(GROUP, "namespacepools/status", "patch"),
    *_permissions(GROUP, "nodedrains", "get list watch create patch delete"),
    *_permissions(GROUP, "nodedrains/status", "patch"),
    *(
        RbacPermission(admission_policies.GROUP_VERSION.partition("/")[0], kind, "get", name=name)
        for kind, name in admission_policies.REQUIRED_OBJECTS
    ),
)
"""Every cluster-wide call of the operator. The chart's ClusterRole grants exactly these permissions."""


async def check(client: Client, namespace: str, *, scaled_deployment: str = "") -> None:
    """Raise ConfigError if the API server or a permission is missing.

    `scaled_deployment`: Deployment that the process scales; empty if none.
    """
    try:
        await client.get("/apis")
    except UnreachableError as error:
        raise ConfigError(messages.no_answer(client.server, error)) from error
    except ApiError as error:
        if error.code == 401:
            raise ConfigError(messages.credentials_refused(client.server, error.response.message)) from error
        raise ConfigError(messages.start_refused(client.server, error)) from error
    leases = tuple(
        RbacPermission("coordination.k8s.io", "leases", verb, lease_namespace, "" if verb == "create" else name)
        for lease_namespace, name in ((namespace, LEASE_NAME), (paths.SYSTEM_NAMESPACE, SHARED_LEASE_NAME))
        for verb in ("create", "get", "update")
    )
    leases += tuple(
        RbacPermission("coordination.k8s.io", "leases", verb, paths.NODE_LEASE_NAMESPACE) for verb in ("list", "watch")
    )
    permissions = (
        REQUIRED_PERMISSIONS
        + leases
        + (
            (RbacPermission("apps", "deployments/scale", "patch", namespace, scaled_deployment),)
            if scaled_deployment
            else ()
        )
    )
    allowed = await asyncio.gather(*(_is_allowed(client, permission) for permission in permissions))
    missing = [str(permission) for permission, granted in zip(permissions, allowed, strict=True) if not granted]
    if missing:
        raise ConfigError(messages.missing_permissions(missing))


async def _is_allowed(client: Client, permission: RbacPermission) -> bool:
    resource, _, subresource = permission.resource.partition("/")
    attributes = {
        "group": permission.group,
        "resource": resource,
        "subresource": subresource,
        "verb": permission.verb,
        "namespace": permission.namespace,
        "name": permission.name,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    review = await client.review(paths.ACCESS_REVIEWS, body)
    return bool(review["status"]["allowed"])
