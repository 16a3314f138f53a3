"""After a conflict the copy in memory is old: the object is read live."""

from rescheduler.controllers.runtime.store import ResourceKind, Store
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client


def is_outdated(error: Exception) -> bool:
    """Whether the server's answer tells that what we know of an object is old."""
    return isinstance(error, ApiError) and error.code in (404, 409, 422)


async def reread(client: Client, store: Store, kind: ResourceKind, path: str) -> None:
    """Take the object in as it is, and forget it where it is gone; an API server that is away is asked another time."""
    try:
        found = await client.find(path)
    except TRANSIENT_ERRORS:
        return
    if found:
        store.put(kind, found)
    else:
        store.drop(kind, path.rpartition("/")[2])
