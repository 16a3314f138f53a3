"""Measures of one drain, from each revision of each pod of its namespace."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from catalogue.entries import OWNER
from harness.min_ready import ready

Pod = Mapping[str, Any]


def owner_of(pod: Pod) -> str:
    """Return the name of the workload that the pod belongs to."""
    return str((pod["metadata"].get("labels") or {}).get(OWNER, ""))


def going(pod: Pod) -> bool:
    """Whether the pod is Terminating."""
    return "deletionTimestamp" in pod["metadata"]


def finished(pod: Pod) -> bool:
    """Whether all containers have ended."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def stays(pod: Pod) -> bool:
    """Whether every drain tool leaves the pod alone."""
    return any(o["kind"] == "DaemonSet" and o.get("controller") for o in pod["metadata"].get("ownerReferences") or ())


@dataclass(frozen=True)
class Budget:
    """A PodDisruptionBudget at the start: the labels that it selects, and the healthy pods that it requires."""

    labels: Mapping[str, str]
    desired: int

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> "Budget":
        labels = (raw["spec"].get("selector") or {}).get("matchLabels") or {}
        return cls(labels, int(raw.get("status", {}).get("desiredHealthy", 0)))

    def covers(self, pod: Pod) -> bool:
        """Whether it selects the pod."""
        return self.labels.items() <= (pod["metadata"].get("labels") or {}).items()


@dataclass
class Tally:
    """Counts over the history of the pods of a namespace.

    Attributes:
        pods: pods that exist, by UID.
        once: by owner, how many of its pods may run at a time.
        least: by owner, the lowest number of Ready pods.
        past_budget: pods that were deleted although a budget required them.
        twice: by owner, the most pods that ran in addition to those that may.
    """

    pods: dict[str, Pod]
    budgets: list[Budget]
    once: Mapping[str, int]
    start: Counter[str] = field(init=False)
    least: dict[str, int] = field(init=False)
    past_budget: int = 0
    twice: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.start = self._ready()
        self.least = dict(self.start)

    @classmethod
    def begin(cls, pods: Iterable[Pod], budgets: Iterable[Mapping[str, Any]], once: Mapping[str, int]) -> "Tally":
        return cls({p["metadata"]["uid"]: p for p in pods}, [Budget.parse(raw) for raw in budgets], once)

    def see(self, pod: Pod, *, gone: bool = False) -> None:
        """Take the next revision of a pod."""
        uid = pod["metadata"]["uid"]
        before = self.pods.get(uid)
        if gone:
            self.pods.pop(uid, None)
        else:
            self.pods[uid] = pod
        counts = self._ready()
        self.least = {owner: min(least, counts[owner]) for owner, least in self.least.items()}
        if before is not None and ready(before) and (gone or going(pod)):
            left = [each for each in self.pods.values() if ready(each)]
            covering = [budget for budget in self.budgets if budget.covers(before)]
            self.past_budget += any(sum(map(b.covers, left)) < b.desired for b in covering)
        for owner, allowed in self.once.items():
            running = sum(owner_of(p) == owner and _runs(p) for p in self.pods.values())
            self.twice[owner] = max(self.twice[owner], running - allowed)

    def relist(self, there: Iterable[Pod]) -> None:
        """Take a list of all pods: after a watch that the server ended early."""
        pods = list(there)
        alive = {pod["metadata"]["uid"] for pod in pods}
        for pod in [pod for uid, pod in self.pods.items() if uid not in alive]:
            self.see(pod, gone=True)
        for pod in pods:
            self.see(pod)

    def _ready(self) -> Counter[str]:
        return Counter(owner_of(pod) for pod in self.pods.values() if owner_of(pod) and ready(pod))


def _runs(pod: Pod) -> bool:
    return pod.get("status", {}).get("phase") == "Running" and not going(pod)
