"""Unbalanced pools with pods of very different sizes: the same seed makes the same pods."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import requests

from harness import workloads
from harness.controlplane import ControlPlane
from harness.observer import Observer
from harness.waiting import until
from rescheduler.core.model.raw import RawObject

_CPU = (50, 100, 100, 100, 250, 250, 500, 500, 1000, 2000)
_REPLICAS = (1, 1, 2, 3, 5, 8)
_MIB_A_CPU = (1024, 2048, 4096, 6144)
_LIKES = (0.2, 1, 1, 6, 20)  # weights of nodes: some have many more pods than others


@dataclass(frozen=True)
class App:
    """Pods of one size.

    Each pod requests thousandths of a CPU and MiB; `nodes` names the first node of each.
    """

    name: str
    cpu: int
    memory: int
    nodes: tuple[str, ...]


def fill(seed: int, sizes: Mapping[str, tuple[int, int]], share: float) -> list[App]:
    """Return unevenly spread apps that request this share of the CPU of the nodes.

    `sizes`: CPU and memory by name of node.
    """
    random, apps = Random(seed), list[App]()
    free = {name: list(size) for name, size in sizes.items()}
    likes = {name: random.choice(_LIKES) for name in sizes}
    left = share * sum(cpu for cpu, _ in sizes.values())
    while left > 0:
        cpu = random.choice(_CPU)
        memory = cpu * random.choice(_MIB_A_CPU) // 1000
        nodes: list[str] = []
        for _ in range(random.choice(_REPLICAS)):
            fits = [name for name, (c, m) in free.items() if c >= cpu and m >= memory]
            if fits:
                name = random.choices(fits, [likes[each] for each in fits])[0]
                free[name] = [free[name][0] - cpu, free[name][1] - memory]
                nodes.append(name)
                left -= cpu
        if not nodes:
            return apps
        apps.append(App(f"app{len(apps)}", cpu, memory, tuple(nodes)))
    return apps


def create(
    plane: ControlPlane,
    observer: Observer,
    space: str,
    apps: Sequence[App],
    selector: Mapping[str, str],
    *,
    ready_after: str = "",
) -> None:
    """Create the Deployments and budgets with each pod on its first node; the scheduler is paused meanwhile."""
    objects: list[RawObject] = []
    for app in apps:
        asked = {"cpu": f"{app.cpu}m", "memory": f"{app.memory}Mi"}
        containers = [{"name": "app", "image": "simulated", "resources": {"requests": asked}}]
        annotations = {"cluster/ready-after": ready_after} if ready_after else {}
        template: dict[str, Any] = {"containers": containers, "annotations": annotations, "nodeSelector": selector}
        objects.append(workloads.deployment(app.name, len(app.nodes), space, **template))
        if len(app.nodes) > 1:
            objects.append(workloads.budget(app.name, space, maxUnavailable=1))
    total = sum(len(app.nodes) for app in apps)
    with plane.paused("kube-scheduler"):
        plane.apply(*objects)
        until(lambda: len(observer.pods(space)) == total, f"{total} pods of {space}", seconds=120, every=0.5)
        _bind(plane, observer, space, apps)
    until(lambda: _ready(observer, space) == total, f"{total} pods of {space} to be Ready", seconds=120, every=0.5)


def _bind(plane: ControlPlane, observer: Observer, space: str, apps: Sequence[App]) -> None:
    nodes = {app.name: list(app.nodes) for app in apps}
    session: requests.Session = observer.api.session
    for pod in sorted(observer.pods(space), key=lambda pod: str(pod["metadata"]["name"])):
        name, target = pod["metadata"]["name"], nodes[pod["metadata"]["labels"]["app"]].pop()
        body: Any = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": target},
        }
        session.post(
            f"{plane.server}/api/v1/namespaces/{space}/pods/{name}/binding", json=body, timeout=30
        ).raise_for_status()


def _ready(observer: Observer, space: str) -> int:
    return sum(
        any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))
        for pod in observer.pods(space)
    )


def deviation(sizes: Mapping[str, tuple[int, int]], pods: Sequence[tuple[App, str]]) -> float:
    """Return the standard deviation of the requested share of the nodes, as the mean of CPU and memory."""
    cpu, memory = Counter[str](), Counter[str]()
    for app, node in pods:
        cpu[node] += app.cpu
        memory[node] += app.memory
    found = []
    for number, asked in enumerate((cpu, memory)):
        shares = [asked[name] / size[number] for name, size in sizes.items()]
        mean = sum(shares) / len(shares)
        found.append(math.sqrt(sum((share - mean) ** 2 for share in shares) / len(shares)))
    return math.fsum(found) / len(found)
