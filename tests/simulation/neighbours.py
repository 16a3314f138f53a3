"""Other controllers in the same namespace without harmful intent: each works as long as pods keep their controllers."""

import asyncio
import random

from harness import workloads
from invariants.objects import deleting, labels, name, node_of, released, uid
from rescheduler.core.model.raw import RawObject
from simulation.admission import TEAM, TakesOver, labels_stay, pods_have_a_controller
from simulation.clusters import SPACE, Cluster
from simulation.controllers import Controller

_PERIODS = (0.5, 5.0, 30.0)


class Pruner(Controller):
    """Prune as GitOps by label does: delete an object with the team's label, without an owner and not in the
    repository.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.period = self.chance.choice(_PERIODS)

    def reconcile(self) -> None:
        for pod in self.server.all("pods", SPACE):
            theirs = TEAM.items() <= labels(pod).items() and not pod["metadata"].get("ownerReferences")
            if theirs and not deleting(pod):
                self.server.remove("pods", pod, user="pruner")


class Attacher(Controller):
    """Keep a pod next to each pod of one application, and let that pod control it, as tools for hotplugged disks do."""

    kinds = ("pods",)

    def reconcile(self) -> None:
        there = {name(pod) for pod in self.server.all("pods", SPACE)}
        for pod in self.server.all("pods", SPACE):
            beside = f"attached-{name(pod)}"
            if labels(pod).get("app") == "single" and node_of(pod) and not deleting(pod) and beside not in there:
                made = workloads.bare_pod(beside, SPACE, nodeName=node_of(pod))
                owner = {"apiVersion": "v1", "kind": "Pod", "name": name(pod), "uid": uid(pod), "controller": True}
                made["metadata"]["ownerReferences"] = [owner]
                self.server.make("pods", made, user="attacher")


def pair() -> list[RawObject]:
    """Return two Deployments whose pods must share a node."""
    found: list[RawObject] = []
    for called in ("left", "right"):
        term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"pair": "x"}}}
        affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        workload = workloads.deployment(called, 1, SPACE, affinity=affinity)
        workload["spec"]["template"]["metadata"]["labels"] |= {"pair": "x"}
        found.append(workload)
    return found


def of_the_team(workload: RawObject) -> RawObject:
    """Return the same workload with the team's label on its pods."""
    workload["spec"]["template"]["metadata"]["labels"] |= TEAM
    return workload


def overlapping(workload: RawObject) -> RawObject:
    """Return the same workload with a selector for all pods of the team."""
    workload["spec"]["selector"] = {"matchLabels": dict(TEAM)}
    return of_the_team(workload)


def settle_in(chance: random.Random, cluster: Cluster, more: random.Random) -> list[str]:
    """Add some of these controllers for the whole run; return their names. `more`: for those that came later."""
    deploy, policies = cluster.deploy, cluster.server.policies
    neighbours = {
        "daemon set": lambda: deploy(overlapping(workloads.daemon_set("agent", SPACE))),
        "bare set": lambda: deploy(overlapping(workloads.replica_set("bare", 1, SPACE))),
        "pruner": lambda: cluster.controllers.append(Pruner(cluster.server, chance)),
        "no orphans": lambda: policies.append(pods_have_a_controller),
        "labels stay": lambda: policies.append(labels_stay),
        "mover": lambda: policies.append(_mover(chance, cluster)),
    }
    later = {
        "attacher": lambda: cluster.controllers.append(Attacher(cluster.server, more)),
        "pair": lambda: deploy(*pair()),
    }
    found = [each for each in neighbours if chance.random() < 0.25] + [each for each in later if more.random() < 0.25]
    neighbours |= later
    for each in found:
        neighbours[each]()
    return found


def _mover(chance: random.Random, cluster: Cluster) -> TakesOver:
    asked: set[str] = set()

    def move(pod: RawObject) -> None:
        if pod["metadata"]["uid"] not in asked:
            asked.add(pod["metadata"]["uid"])
            asyncio.get_running_loop().call_later(10, lambda: cluster.server.remove("pods", pod, user="mover"))

    return TakesOver(chance.choice(("single", "never", "db")), move, strict=chance.random() < 0.5)


async def reap(cluster: Cluster, lasts: float, *, every: float) -> None:
    """Delete each released pod for a while."""
    loop = asyncio.get_running_loop()
    end = loop.time() + lasts
    while loop.time() < end:
        for pod in cluster.server.all("pods"):
            if released(pod) and not deleting(pod) and not cluster.server.away:
                cluster.server.remove("pods", pod, user="reaper")
        await asyncio.sleep(every)
