"""Find with live reads the pods that would lose their last place by the taint of an exclusive pool."""

from collections.abc import Mapping

from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.core.model import volumes
from rescheduler.core.model.listed_pods import parse_listed_pod
from rescheduler.core.model.volumes import Volume, VolumeClaim
from rescheduler.core.model.workloads import parse_daemon_set
from rescheduler.core.pools import taint_safety
from rescheduler.core.pools.taint_safety import PlannedTaint
from rescheduler.kube import paths
from rescheduler.kube.client import Client

_UNFINISHED_PODS_SELECTOR = "status.phase!=Succeeded,status.phase!=Failed"


async def find_unschedulable(client: Client, planned_taint: PlannedTaint) -> list[str]:
    """Return the names of the DaemonSets and pods that would lose their last place."""
    unschedulable: set[str] = set()
    claims_by_pod: dict[str, tuple[tuple[str, str], ...]] = {}
    async for page in client.list(paths.DAEMON_SETS):
        unschedulable |= set(
            taint_safety.unschedulable_daemon_sets(readable_objects(page["items"], parse_daemon_set), planned_taint)
        )
    # The empty name lists pods without a node: the pool's nodes may be their only place too.
    for name in ("", *(node.name for node in planned_taint.nodes)):
        async for page in client.list(paths.PODS, fieldSelector=f"spec.nodeName={name},{_UNFINISHED_PODS_SELECTOR}"):
            pods = list(readable_objects(page["items"], parse_listed_pod))
            unschedulable |= set(taint_safety.unschedulable_pods(pods, planned_taint))
            claims_by_pod |= taint_safety.claims_of_affected_pods(pods, planned_taint)
    return sorted({*unschedulable, *await _with_local_volumes(client, claims_by_pod)})


async def _with_local_volumes(client: Client, claims_by_pod: Mapping[str, tuple[tuple[str, str], ...]]) -> list[str]:
    """Return the pods whose data is on one node."""
    if not claims_by_pod:
        return []
    claims: list[VolumeClaim] = []
    all_volumes: list[Volume] = []
    for namespace in sorted({namespace for mounts in claims_by_pod.values() for namespace, _ in mounts}):
        async for page in client.list(paths.in_namespace("v1", namespace, "persistentvolumeclaims")):
            claims += readable_objects(page["items"], volumes.parse_volume_claim)
    async for page in client.list(paths.PERSISTENT_VOLUMES):
        all_volumes += readable_objects(page["items"], volumes.parse_volume)
    return taint_safety.pods_with_local_volumes(claims_by_pod, claims, all_volumes)


async def pods_requiring_pool(client: Client, node: str, pool: str) -> list[str]:
    """Return the pods on this node, and those without a node, that require the label of this pool."""
    requiring: list[str] = []
    for name in ("", node):
        async for page in client.list(paths.PODS, fieldSelector=f"spec.nodeName={name},{_UNFINISHED_PODS_SELECTOR}"):
            pods = readable_objects(page["items"], parse_listed_pod)
            requiring += [pod.key for pod in pods if pod.node_constraints.requires_pool(pool)]
    return sorted(requiring)
