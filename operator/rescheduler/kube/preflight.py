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
from rescheduler.kube.leader_election import LEASE, SHARED_LEASE


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource; `namespace` and `name` only where the right is asked for one."""

    group: str
    resource: str
    verb: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        name = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {name}" + (f" in namespace {self.namespace}" if self.namespace else "")


def _rights(group: str, resource: str, verbs: str) -> tuple[Right, ...]:
    return tuple(Right(group, resource, verb) for verb in verbs.split())


RIGHTS: tuple[Right, ...] = (
    *_rights("", "nodes", "get list watch patch"),
    *_rights("", "nodes/status", "patch"),
    *_rights("", "pods", "list watch patch delete"),
    *_rights("", "pods/status", "patch"),
    *_rights("", "pods/eviction", "create"),
    *_rights("", "events", "create patch"),
    *_rights("", "namespaces", "get list watch patch"),
    *_rights("", "persistentvolumeclaims", "list watch"),
    *_rights("", "persistentvolumes", "list watch"),
    *_rights("storage.k8s.io", "volumeattachments", "list watch"),
    *_rights("batch", "jobs", "list watch"),
    *_rights("apps", "deployments", "list watch"),
    *_rights("apps", "daemonsets", "list watch"),
    *_rights("apps", "replicasets", "get list watch"),
    *_rights("policy", "poddisruptionbudgets", "list watch"),
    *_rights("coordination.k8s.io", "leases", "get"),
    *_rights("cluster.x-k8s.io", "machines", "get"),
    *_rights("metrics.k8s.io", "nodes", "list"),
    *(
        Right("apiextensions.k8s.io", "customresourcedefinitions", "list", name=paths.crd(resource))
        for resource in ("namespacepools", "nodedrains", "reschedulepolicies")
    ),
    *_rights(GROUP, "reschedulepolicies", "list watch"),
    *_rights(GROUP, "namespacepools", "get list watch patch"),
    *_rights(GROUP, "namespacepools/status", "patch"),
    *_rights(GROUP, "nodedrains", "get list watch create patch delete"),
    *_rights(GROUP, "nodedrains/status", "patch"),
    *(
        Right(admission_policies.GROUP.partition("/")[0], kind, "get", name=name)
        for kind, name in admission_policies.WANTED
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
                f"the API server at {client.server} does not accept the credentials: {error.refusal.message}"
            ) from error
        raise ConfigError(f"the API server at {client.server} refused: {error}") from error
    leases = tuple(
        Right("coordination.k8s.io", "leases", verb, where, "" if verb == "create" else name)
        for where, name in ((namespace, LEASE), (paths.SYSTEM, SHARED_LEASE))
        for verb in ("create", "get", "update")
    )
    leases += tuple(Right("coordination.k8s.io", "leases", verb, paths.NODE_LEASES) for verb in ("list", "watch"))
    rights = (
        RIGHTS + leases + ((Right("apps", "deployments/scale", "patch", namespace, "rescheduler"),) if cleanup else ())
    )
    allowed = await asyncio.gather(*(_may(client, right) for right in rights))
    missing = [str(right) for right, granted in zip(rights, allowed, strict=True) if not granted]
    if missing:
        raise ConfigError(
            f"RBAC does not allow this identity to {'; '.join(missing)}: "
            "install the chart's ClusterRole and its binding (manifests/install.yaml), or grant these"
        )


async def _may(client: Client, right: Right) -> bool:
    resource, _, subresource = right.resource.partition("/")
    attributes = {
        "group": right.group,
        "resource": resource,
        "subresource": subresource,
        "verb": right.verb,
        "namespace": right.namespace,
        "name": right.name,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = await client.review(paths.ACCESS_REVIEWS, body)
    return bool(answer["status"]["allowed"])
