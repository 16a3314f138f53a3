"""Who would lose their last place by the taint of an exclusive pool: asked live, before it is set."""

from collections.abc import Mapping

from rescheduler.controllers.runtime.readable import readable
from rescheduler.core.model import object_schemas, volumes
from rescheduler.core.model.volumes import Claim, Volume
from rescheduler.core.pools import labels_and_taints, taint_safety
from rescheduler.core.pools.taint_safety import Exclusion
from rescheduler.kube import paths
from rescheduler.kube.client import Client, Json

_ALIVE = "status.phase!=Succeeded,status.phase!=Failed"


async def losers(client: Client, exclusion: Exclusion) -> list[str]:
    """Their names; nothing of what was read is kept."""
    found: set[str] = set()
    mounted: dict[str, tuple[tuple[str, str], ...]] = {}
    async for page in client.list(paths.DAEMON_SETS):
        found |= set(taint_safety.daemon_sets(readable(page["items"], object_schemas.daemon_set), exclusion))
    # What waits for a node may have no other either.
    for name in ("", *(node.name for node in exclusion.nodes)):
        async for page in client.list(paths.PODS, fieldSelector=f"spec.nodeName={name},{_ALIVE}"):
            rows = list(readable(page["items"], object_schemas.pod))
            found |= set(taint_safety.pods(rows, exclusion))
            mounted |= taint_safety.mounted(rows, exclusion)
    return sorted({*found, *await _tied(client, mounted)})


async def _tied(client: Client, mounted: Mapping[str, tuple[tuple[str, str], ...]]) -> list[str]:
    """Those of these pods whose data is on one node."""
    if not mounted:
        return []
    claims: list[Claim] = []
    held: list[Volume] = []
    for space in sorted({space for mounts in mounted.values() for space, _ in mounts}):
        async for page in client.list(paths.namespaced("v1", space, "persistentvolumeclaims")):
            claims += readable(page["items"], volumes.claim)
    async for page in client.list(paths.VOLUMES):
        held += readable(page["items"], volumes.volume)
    return taint_safety.tied(mounted, claims, held)


async def bound_to(client: Client, node: str, pool: str) -> list[str]:
    """Pods on this node, or on none yet, that can be on no node without the label of this pool."""
    found: list[Json] = []
    for name in ("", node):
        async for page in client.list(paths.PODS, fieldSelector=f"spec.nodeName={name},{_ALIVE}"):
            rows = readable(page["items"], object_schemas.pod)
            found += [raw["metadata"] for raw in rows if labels_and_taints.selects_pool(raw, pool)]
    return sorted(f"{meta['namespace']}/{meta['name']}" for meta in found)
