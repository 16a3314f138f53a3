"""Who would lose their last place by the taint of an exclusive pool: asked live, before it is set."""

from collections.abc import Mapping

from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.core.model import object_schemas, volumes
from rescheduler.core.model.volumes import Volume, VolumeClaim
from rescheduler.core.pools import labels_and_taints, taint_safety
from rescheduler.core.pools.taint_safety import PlannedTaint
from rescheduler.kube import paths
from rescheduler.kube.client import Client, Json

_UNFINISHED_PODS_SELECTOR = "status.phase!=Succeeded,status.phase!=Failed"


async def find_unschedulable(client: Client, planned_taint: PlannedTaint) -> list[str]:
    """Their names; nothing of what was read is kept."""
    found: set[str] = set()
    mounted: dict[str, tuple[tuple[str, str], ...]] = {}
    async for page in client.list(paths.DAEMON_SETS):
        found |= set(
            taint_safety.unschedulable_daemon_sets(
                readable_objects(page["items"], object_schemas.sanitize_daemon_set), planned_taint
            )
        )
    # What waits for a node may have no other either.
    for name in ("", *(node.name for node in planned_taint.nodes)):
        async for page in client.list(paths.PODS, fieldSelector=f"spec.nodeName={name},{_UNFINISHED_PODS_SELECTOR}"):
            rows = list(readable_objects(page["items"], object_schemas.sanitize_pod))
            found |= set(taint_safety.unschedulable_pods(rows, planned_taint))
            mounted |= taint_safety.claims_of_affected_pods(rows, planned_taint)
    return sorted({*found, *await _with_local_volumes(client, mounted)})


async def _with_local_volumes(client: Client, claims_by_pod: Mapping[str, tuple[tuple[str, str], ...]]) -> list[str]:
    """Those of these pods whose data is on one node."""
    if not claims_by_pod:
        return []
    claims: list[VolumeClaim] = []
    held: list[Volume] = []
    for space in sorted({space for mounts in claims_by_pod.values() for space, _ in mounts}):
        async for page in client.list(paths.in_namespace("v1", space, "persistentvolumeclaims")):
            claims += readable_objects(page["items"], volumes.parse_volume_claim)
    async for page in client.list(paths.PERSISTENT_VOLUMES):
        held += readable_objects(page["items"], volumes.parse_volume)
    return taint_safety.pods_with_local_volumes(claims_by_pod, claims, held)


async def pods_requiring_pool(client: Client, node: str, pool: str) -> list[str]:
    """Pods on this node, or on none yet, that can be on no node without the label of this pool."""
    found: list[Json] = []
    for name in ("", node):
        async for page in client.list(paths.PODS, fieldSelector=f"spec.nodeName={name},{_UNFINISHED_PODS_SELECTOR}"):
            rows = readable_objects(page["items"], object_schemas.sanitize_pod)
            found += [raw["metadata"] for raw in rows if labels_and_taints.requires_pool(raw, pool)]
    return sorted(f"{meta['namespace']}/{meta['name']}" for meta in found)
