"""New pods of an owner that other clients remove while its released pods wait for them."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rescheduler.core.model.pods import Pod
from rescheduler.core.model.workloads import ReplicaSet, Workload
from rescheduler.core.replacement import messages

_MAX_REMOVED = 3
"""Removed new pods of an owner, without a success between them, after which the owner backs off."""
_MAX_PAUSE = timedelta(minutes=5)
ATTEMPTS_BEFORE_LONGEST_PAUSE = 10
"""Back-offs in a row after which the pause no longer grows, so that the pods leave without a replacement."""


@dataclass(frozen=True, slots=True)
class NewPods:
    """New pods of an owner since the first of its open releases, at the last observation.

    Attributes:
        replica_set: name of the ReplicaSet that creates them; `replicas`: its replicas.
        running: the new pods, by uid.
        missing: removed pods for which the ReplicaSet has created no other pod yet. A ReplicaSet that is scaled down
            creates none, and the watch may bring its pods before its own change.
        removed: texts of the pods that other clients removed: the pod, and the remover if it is known.
    """

    replica_set: str
    replicas: int
    running: Mapping[str, Pod] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def placed_uids(self, workload: Workload) -> frozenset[str]:
        """Return the uids of the new pods on another node than the released pods."""
        left = {pod.node for pod in workload.released_pods}
        return frozenset(uid for uid, pod in self.running.items() if pod.node and pod.node not in left)

    @property
    def must_back_off(self) -> bool:
        """Whether other clients have removed too many of the new pods."""
        return len(self.removed) >= _MAX_REMOVED


def observe(previous: NewPods | None, workload: Workload, latest: Callable[[Pod], Pod | None]) -> NewPods | None:
    """Return the new pods of an owner now; None if none of its pods is released.

    `latest` returns the current version of a pod, also under another controller; None if the pod is gone.
    """
    releases = [released.release_record for released in workload.released_pods if released.release_record]
    rs = workload.current_replica_set
    if not releases or rs is None or workload.is_rolling_out:
        return None
    first_release = min(release.released_at for release in releases).replace(microsecond=0)
    controlled = {pod.uid: pod for pod in workload.controlled_pods(rs)}
    running = {uid: pod for uid, pod in controlled.items() if pod.created and pod.created >= first_release}
    # A ReplicaSet deletes pods itself: when it is scaled down, and one pod for each returned pod.
    deletes_itself = any(pod.returned for pod in workload.pods)
    if previous is None or deletes_itself or (previous.replica_set, previous.replicas) != (rs.name, rs.replicas):
        return NewPods(rs.name, rs.replicas, running, removed=previous.removed if previous else ())
    gone = (pod for uid, pod in previous.running.items() if uid not in controlled)
    missing = (*previous.missing, *(text for pod in gone if (text := _removal(pod, latest(pod), workload, rs))))
    replaced = min(len(missing), len(running.keys() - previous.running.keys()))
    return NewPods(rs.name, rs.replicas, running, missing[replaced:], (*previous.removed, *missing[:replaced]))


def replacement(workload: Workload, released_at: datetime, old_node: str, taken: AbstractSet[str]) -> Pod | None:
    """Return the oldest Ready pod on another node that the owner created after a release; None if there is none.

    `taken`: uids of pods that replace other pods already.
    """
    first = released_at.replace(microsecond=0)
    candidates = (
        pod
        for pod in workload.controlled_pods(None)
        if pod.ready
        and pod.node not in ("", old_node)
        and pod.uid not in taken
        and pod.created
        and pod.created >= first
    )
    return min(candidates, key=lambda pod: (pod.created, pod.key), default=None)


def _removal(pod: Pod, latest: Pod | None, workload: Workload, rs: ReplicaSet) -> str | None:
    """Return which pod another client removed, and the remover if it is known; None if no other client removed it."""
    last = latest or pod
    if pod.uid in workload.evicting_uids or last.evicted or last.finished:
        return None
    adopter = last.owner if last.owner and last.owner.uid != rs.uid else None
    return messages.removed_pod(pod.name, adopter, last.disruption)


def pause_after_removals(attempts: int) -> timedelta:
    """Return the pause after this many back-offs in a row: 1 s, doubled each time, up to 5 min."""
    return min(timedelta(seconds=2 ** min(attempts - 1, 10)), _MAX_PAUSE)
