"""Before anything starts: is the API server there, and may we do what we must?

Each answer that is no becomes one line that names what is missing and how to get it. Missing CRDs end nothing: what
an earlier run has left is to be given back all the same, and they may come later.
"""

import asyncio
from dataclasses import dataclass

from rescheduler.api import GROUP
from rescheduler.core.pools import admission_policies
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError, Client, ConfigError, UnreachableError
from rescheduler.kube.leader_election import LEASE_NAME, SHARED_LEASE_NAME


@dataclass(frozen=True, slots=True)
class RbacPermission:
    """One verb on one resource; `namespace` and `name` only where the right is asked for one."""

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
    *_permissions("batch", "jobs", "list watch"),
    *_permissions("apps", "deployments", "list watch"),
    *_permissions("apps", "daemonsets", "list watch"),
    *_permissions("apps", "replicasets", "get list watch"),
    *_permissions("policy", "poddisruptionbudgets", "list watch"),
    *_permissions("coordination.k8s.io", "leases", "get"),
    *_permissions("cluster.x-k8s.io", "machines", "get"),
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
"""Every call that the operator makes, cluster-wide; the chart's ClusterRole grants these and no more."""


async def check(client: Client, namespace: str, *, cleanup: bool = False) -> None:
    """Raises ConfigError, one line for each thing that is missing; `cleanup` asks for one right more."""
    try:
        await client.get("/apis")
    except UnreachableError as error:
        raise ConfigError(f"the API server at {client.server} does not answer: {error}") from error
    except ApiError as error:
        if error.code == 401:
            raise ConfigError(
                f"the API server at {client.server} does not accept the credentials: {error.response.message}"
            ) from error
        raise ConfigError(f"the API server at {client.server} refused: {error}") from error
    leases = tuple(
        RbacPermission("coordination.k8s.io", "leases", verb, where, "" if verb == "create" else name)
        for where, name in ((namespace, LEASE_NAME), (paths.SYSTEM_NAMESPACE, SHARED_LEASE_NAME))
        for verb in ("create", "get", "update")
    )
    leases += tuple(
        RbacPermission("coordination.k8s.io", "leases", verb, paths.NODE_LEASE_NAMESPACE) for verb in ("list", "watch")
    )
    rights = (
        REQUIRED_PERMISSIONS
        + leases
        + ((RbacPermission("apps", "deployments/scale", "patch", namespace, "rescheduler"),) if cleanup else ())
    )
    allowed = await asyncio.gather(*(_is_allowed(client, right) for right in rights))
    missing = [str(right) for right, granted in zip(rights, allowed, strict=True) if not granted]
    if missing:
        raise ConfigError(
            f"RBAC does not allow this identity to {'; '.join(missing)}: "
            "install the chart's ClusterRole and its binding (manifests/install.yaml), or grant these"
        )


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
    answer = await client.review(paths.ACCESS_REVIEWS, body)
    return bool(answer["status"]["allowed"])
