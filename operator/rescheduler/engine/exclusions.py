"""Who would lose their last place by the taint of an exclusive pool: asked live, before it is set."""

from rescheduler.core import exclusions, pools
from rescheduler.core.exclusions import Exclusion
from rescheduler.kube import paths
from rescheduler.kube.client import Client, Json

_ALIVE = "status.phase!=Succeeded,status.phase!=Failed"


async def losers(client: Client, exclusion: Exclusion) -> list[str]:
    """Their names; nothing of what was read is kept."""
    found: list[str] = []
    async for page in client.list(paths.DAEMON_SETS):
        found += exclusions.daemon_sets(page["items"], exclusion)
    # What waits for a node may have no other either.
    for name in ("", *(node.name for node in exclusion.nodes)):
        async for page in client.list(paths.PODS, fieldSelector=f"spec.nodeName={name},{_ALIVE}"):
            found += exclusions.pods(page["items"], exclusion)
    return sorted(found)


async def bound_to(client: Client, node: str, pool: str) -> list[str]:
    """Pods on this node, or on none yet, that can be on no node without the label of this pool."""
    found: list[Json] = []
    for name in ("", node):
        async for page in client.list(paths.PODS, fieldSelector=f"spec.nodeName={name},{_ALIVE}"):
            found += [raw["metadata"] for raw in page["items"] if pools.selects_pool(raw, pool)]
    return sorted(f"{meta['namespace']}/{meta['name']}" for meta in found)
