"""Who would lose their last place by the taint of an exclusive pool: asked live, before it is set."""

from collections.abc import Mapping

from rescheduler.core import exclusions, pools, shapes, volumes
from rescheduler.core.exclusions import Exclusion
from rescheduler.core.volumes import Claim, Volume
from rescheduler.engine.readables import readable
from rescheduler.kube import paths
from rescheduler.kube.client import Client, Json

_ALIVE = "status.phase!=Succeeded,status.phase!=Failed"


async def losers(client: Client, exclusion: Exclusion) -> list[str]:
    """Their names; nothing of what was read is kept."""
    found: set[str] = set()
    mounted: dict[str, tuple[tuple[str, str], ...]] = {}
    async for page in client.list(paths.DAEMON_SETS):
        found |= set(exclusions.daemon_sets(readable(page["items"], shapes.daemon_set), exclusion))
    # What waits for a node may have no other either.
    for name in ("", *(node.name for node in exclusion.nodes)):
        async for page in client.list(paths.PODS, fieldSelector=f"spec.nodeName={name},{_ALIVE}"):
            rows = list(readable(page["items"], shapes.pod))
            found |= set(exclusions.pods(rows, exclusion))
            mounted |= exclusions.mounted(rows, exclusion)
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
    return exclusions.tied(mounted, claims, held)


async def bound_to(client: Client, node: str, pool: str) -> list[str]:
    """Pods on this node, or on none yet, that can be on no node without the label of this pool."""
    found: list[Json] = []
    for name in ("", node):
        async for page in client.list(paths.PODS, fieldSelector=f"spec.nodeName={name},{_ALIVE}"):
            rows = readable(page["items"], shapes.pod)
            found += [raw["metadata"] for raw in rows if pools.selects_pool(raw, pool)]
    return sorted(f"{meta['namespace']}/{meta['name']}" for meta in found)
