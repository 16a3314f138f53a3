"""Live reads after a conflict, because the copy in the store is old."""

from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.eviction import write_refusals
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client

_INVALID = 422


def may_be_outdated(error: Exception) -> bool:
    """Whether the copy of the object in the store may be old.

    A conflict says so. An invalid write may come from an old copy too, but a new read need not cure it: for retries and
    reports it is a lasting refusal.
    """
    return isinstance(error, ApiError) and (write_refusals.is_conflict(error.response) or error.code == _INVALID)


async def reread(client: Client, store: Store, kind: ResourceKind, path: str) -> None:
    """Read the object again into the store, or drop it if it is gone; do nothing if the API server fails."""
    try:
        store.put(kind, await client.get(path))
    except ApiError as error:
        # Without a NodeDrain, released pods are returned and nodes uncordoned. A CRD that stops serving our version, or
        # a proxy, must not do that.
        if write_refusals.is_gone(error.response):
            store.drop(kind, path.rpartition("/")[2])
    except TRANSIENT_ERRORS:
        return
