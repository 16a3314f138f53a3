"""Count the pods that come back: after its cordon, an owner that had a pod on the node gets a new pod there.

The scheduler may place a pod on the node if the pod tolerates the cordon. A controller that sets `spec.nodeName` does
not ask the scheduler. In both cases an eviction moves nothing, and without a count a drain would evict forever.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from rescheduler.api.drains import MAX_OWNERS_CAME_BACK, CameBackPods
from rescheduler.core.eviction.pod_actions import MAX_CAME_BACK, OwnerKey, is_recreated
from rescheduler.core.model.pods import Owner, Pod

_CAME_BACK_WITHIN = timedelta(minutes=1)
"""A controller that has brought a pod back within this time may be about to bring the next one."""
_SUCCESSOR_WITHIN = timedelta(seconds=10)
"""The owner of a pod that tolerates the cordon creates the next one within this time; it may start on the node."""
_SCHEDULER_LAG = timedelta(seconds=2)
"""A scheduler may place a pod that was created within this time on the node, because it has not seen the cordon."""


def owners_by_uid(pods: Iterable[Pod]) -> dict[str, OwnerKey]:
    """Return the owner of each pod that an owner would recreate, by uid of the pod."""
    return {pod.uid: (pod.namespace, pod.owner.uid) for pod in pods if pod.owner and is_recreated(pod)}


def observe(
    before: Iterable[CameBackPods], pods: Iterable[Pod], seen: Mapping[str, OwnerKey], cordoned_at: datetime | None
) -> tuple[CameBackPods, ...]:
    """Return the pods that came back, by owner, with those that are new on the node.

    `seen`: owners of the pods that were on the node before, by uid of the pod. `cordoned_at`: when the node was
    cordoned, rather late than early; None without a cordon.
    """
    found = {(entry.namespace, entry.uid): entry for entry in before}
    owners_before = frozenset(seen.values()) | found.keys()
    for pod in sorted(pods, key=lambda pod: pod.uid):
        if pod.owner is None or pod.uid in seen or (key := (pod.namespace, pod.owner.uid)) not in owners_before:
            continue
        if created := _came_back_at(pod, cordoned_at):
            found[key] = _with_pod(found.get(key), pod, pod.owner, created)
    # Owners with most pods come first: if the list is too long, the others are counted again.
    rows = sorted(found.values(), key=lambda entry: (-len(entry.pods), entry.namespace, entry.kind, entry.name))
    return tuple(rows[:MAX_OWNERS_CAME_BACK])


def settled_owners(came_back: Iterable[CameBackPods]) -> frozenset[OwnerKey]:
    """Return the owners of which so many pods came back that another eviction would move nothing."""
    return frozenset((entry.namespace, entry.uid) for entry in came_back if len(entry.pods) >= MAX_CAME_BACK)


def last_came_back(came_back: Iterable[CameBackPods], now: datetime) -> CameBackPods | None:
    """Return the owner whose pod came back last without tolerating the cordon; None if none did within a minute."""
    in_spite = (
        entry for entry in came_back if not entry.tolerates_cordon and now < entry.last_created_at + _CAME_BACK_WITHIN
    )
    return max(in_spite, key=lambda entry: (entry.last_created_at, entry.namespace, entry.uid), default=None)


def seconds_until_successor(tolerating_left_at: datetime | None, now: datetime) -> float:
    """Return the seconds in which the successor of a pod that tolerates the cordon may start; 0 without one."""
    if tolerating_left_at is None:
        return 0.0
    return max((tolerating_left_at + _SUCCESSOR_WITHIN - now).total_seconds(), 0.0)


def may_come_back(came_back: Iterable[CameBackPods], tolerating_left_at: datetime | None, now: datetime) -> bool:
    """Whether an empty node may get a pod again in the next moment.

    `tolerating_left_at`: when a pod that tolerates the cordon last left; None if none did.
    """
    return seconds_until_successor(tolerating_left_at, now) > 0 or last_came_back(came_back, now) is not None


def _came_back_at(pod: Pod, cordoned_at: datetime | None) -> datetime | None:
    """Return when a pod that came back was created; None for any other pod."""
    if pod.created is None or cordoned_at is None or not is_recreated(pod) or pod.is_mirror:
        return None
    lag = timedelta() if pod.tolerates_cordon else _SCHEDULER_LAG
    return pod.created if pod.created >= cordoned_at + lag else None


def _with_pod(entry: CameBackPods | None, pod: Pod, owner: Owner, created: datetime) -> CameBackPods:
    uids: Sequence[str] = entry.pods if entry else ()
    if entry and (pod.uid in uids or (len(uids) >= MAX_CAME_BACK and created <= entry.last_created_at)):
        return entry
    return CameBackPods(
        namespace=pod.namespace,
        kind=owner.kind,
        name=owner.name,
        uid=owner.uid,
        pods=(*uids, pod.uid)[:MAX_CAME_BACK],
        tolerates_cordon=pod.tolerates_cordon,
        last_created_at=max(created, entry.last_created_at) if entry else created,
    )
