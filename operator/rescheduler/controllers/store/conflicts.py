"""Live reads after a conflict, because the copy in the store is old."""

from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client


def is_outdated(error: Exception) -> bool:
    """Whether the error means that the copy of the object in the store is old."""
    return isinstance(error, ApiError) and error.code in (404, 409, 422)


async def reread(client: Client, store: Store, kind: ResourceKind, path: str) -> None:
    """Read the object again into the store, or drop it if it is gone; do nothing if the API server fails."""
    try:
        raw = await client.find(path)
    except TRANSIENT_ERRORS:
        return
    if raw:
        store.put(kind, raw)
    else:
        store.drop(kind, path.rpartition("/")[2])
