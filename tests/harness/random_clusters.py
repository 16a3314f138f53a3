"""Random clusters with a node to drain: do the other nodes have room for its pods?

A number always makes the same cluster. Every second one is tight: the free resources of other nodes are about what the
pods request. Every rule of the plan occurs, mixed with others: a new rule of the plan must be added here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

SPACES = {"one": {"team": "a"}, "two": {"team": "b"}, "three": {}}
"""Namespaces, with their labels."""
PRIORITIES = {"": 0, "high": 1000}
ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
GPU = "example.com/gpu"


@dataclass
class App:
    """A workload: pods of one template."""

    name: str
    space: str
    cpu: int
    memory: int
    spec: dict[str, Any] = field(default_factory=dict)
    containers: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    claim: bool = False

    def pod(self, number: int, node: str | None = None) -> dict[str, Any]:
        """Return a pod of the app as the API server stores it."""
        name = f"{self.name}-{number}"
        spec: dict[str, Any] = {"schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 0, **self.spec}
        spec["containers"] = self.containers
        if self.claim:
            spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]
        if node:
            spec["nodeName"] = node
        meta = {"name": name, "namespace": self.space, "labels": {"app": self.name, **self.labels}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


@dataclass
class RandomCluster:
    """A random cluster with a node to drain.

    Attributes:
        drained: the node to drain.
        staying: pods with a node.
        leaving: pods of the drained node, in the order in which they need a new place.
    """

    number: int
    tight: bool
    nodes: list[dict[str, Any]]
    drained: str
    staying: list[dict[str, Any]]
    leaving: list[dict[str, Any]]
    volumes: list[dict[str, Any]] = field(default_factory=list)


def random_cluster(number: int) -> RandomCluster:
    """Return the random cluster of this number."""
    return _Maker(number).made()


class _Maker:
    def __init__(self, number: int) -> None:
        self.number, self.tight = number, number % 2 == 1
        self.random = Random(f"puzzle {number}")  # another text would make other clusters
        self.zones = self.random.choice([["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"]])
        self.home: dict[str, str] = {}

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def made(self) -> RandomCluster:
        nodes = [self._node(n) for n in range(self.random.randint(5, 14))]
        drained = nodes[0]["metadata"]["name"]
        self.home = nodes[0]["metadata"]["labels"]
        nodes[0]["spec"] = {"unschedulable": True}
        apps = [self._app(n) for n in range(self.random.randint(4, 12))]
        leaving = [app.pod(n, drained) for app in apps for n in range(self._replicas(app))]
        self.random.shuffle(leaving)
        leaving = list(_fitting(leaving, nodes[0]))
        staying = list(self._staying(apps, nodes, leaving))
        return RandomCluster(self.number, self.tight, nodes, drained, staying, leaving, self._volumes(leaving))

    def _replicas(self, app: App) -> int:
        """Return the number of pods on the drained node; mostly one of an app whose pods exclude each other."""
        lonely = "podAntiAffinity" in app.spec.get("affinity", {}) and self.chance(0.8)
        few = any("ports" in c or GPU in c["resources"].get("requests", ()) for c in app.containers)
        return 1 if lonely else self.random.randint(1, 2 if few and self.chance(0.8) else 12)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _node(self, n: int) -> dict[str, Any]:
        name = f"p{self.number}-n{n}"
        cpu, memory = self.random.choice([(8, 16), (8, 32), (16, 32)] if n else [(16, 64)])
        size = {
            "cpu": str(cpu),
            "memory": f"{memory}Gi",
            "pods": str(self.random.choice([20, 40, 110] if n else [110])),
        }
        if n == 0 or self.chance(0.4):
            size[GPU] = str(self.random.choice([1, 2, 4]))
        labels = {HOST: name, "disk": self.random.choice(["ssd", "hdd"]), "size": str(cpu)}
        if self.chance(0.95):
            labels[ZONE] = self.random.choice(self.zones)
        spec: dict[str, Any] = {"unschedulable": True} if self.chance(0.06) else {}
        if n and self.chance(0.1):
            spec["taints"] = [{"key": "own", "value": "x", "effect": self.random.choice(["NoSchedule", "NoExecute"])}]
        ready = {"type": "Ready", "status": "True", "reason": "RandomCluster", "message": ""}
        status = {"allocatable": size, "capacity": size, "conditions": [ready]}
        meta = {"name": name, "labels": labels}
        return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec, "status": status}

    # -- apps ---------------------------------------------------------------------------------------------------------

    def _app(self, n: int) -> App:
        app = App(
            f"p{self.number}-a{n}",
            self.random.choice(list(SPACES)),
            self.random.choice([0, 50, 100, 100, 250, 250, 500, 1000]),
            self.random.choice([0, 64, 128, 256, 512, 512, 1024, 2048]),
        )
        app.labels = {"tier": self.random.choice(["front", "back"]), "rev": self.random.choice(["1", "2"])}
        app.containers = [self._container(app.cpu, app.memory)]
        self._sizes(app)
        self._nodes_asked(app)
        self._company(app)
        self._spread(app)
        if self.chance(0.2):
            app.spec |= {"priorityClassName": "high", "priority": PRIORITIES["high"], "preemptionPolicy": "Never"}
        app.claim = self.chance(0.08)
        return app

    def _container(self, cpu: int, memory: int, **more: Any) -> dict[str, Any]:
        requests = {name: text for name, text, there in _sizes(cpu, memory) if there}
        resources = {"requests": requests} if requests else {}
        return {"name": "app", "image": "simulated", "resources": resources, **more}

    def _sizes(self, app: App) -> None:
        """Request resources in other ways: init containers, sidecars, devices, host ports or overhead."""
        if self.chance(0.12):
            app.spec["initContainers"] = [self._container(app.cpu * 2, app.memory) | {"name": "init"}]
        if self.chance(0.12):
            sidecar = self._container(100, 64) | {"name": "beside", "restartPolicy": "Always"}
            app.spec["initContainers"] = [sidecar, *app.spec.get("initContainers", [])]
        if self.chance(0.08):
            app.spec["resources"] = {"requests": {"cpu": f"{app.cpu * 2 + 200}m", "memory": f"{app.memory + 128}Mi"}}
        if self.chance(0.08):
            resources = app.containers[0]["resources"]
            resources["requests"] = {**resources.get("requests", {}), GPU: "1"}
            resources["limits"] = {GPU: "1"}
        if self.chance(0.08):
            port: dict[str, Any] = {"containerPort": 80, "hostPort": self.random.choice([8080, 8081])}
            if self.chance(0.3):
                port["hostIP"] = self.random.choice(["10.0.0.1", "10.0.0.2"])
            app.containers[0]["ports"] = [port]
        if self.chance(0.08):
            app.spec |= {"runtimeClassName": "heavy", "overhead": {"cpu": "100m", "memory": "64Mi"}}

    def _nodes_asked(self, app: App) -> None:
        if self.chance(0.2):
            app.spec["nodeSelector"] = {"disk": self.home["disk"]}
        if self.chance(0.25):
            app.spec["tolerations"] = [
                self.random.choice(
                    [
                        {"key": "own", "operator": "Equal", "value": "x", "effect": "NoSchedule"},
                        {"key": "own", "operator": "Exists"},
                        {"key": "own", "operator": "Equal", "value": "y"},
                    ]
                )
            ]
        if self.chance(0.2):
            terms = self.random.sample(self._terms(), self.random.randint(1, 2))
            _affinity(app)["nodeAffinity"] = {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": k, "operator": o, "values": v} for k, o, v in term]}
                        for term in terms
                    ]
                }
            }

    def _terms(self) -> list[list[tuple[str, str, list[str]]]]:
        """Return requirements; those that the drained node meets are twice as frequent."""
        home, zone = self.home, self.home.get(ZONE, "a")
        return [
            [("size", "Gt", [str(int(home["size"]) - 1)])],
            [("size", "Lt", [str(int(home["size"]) * 2)]), ("disk", "Exists", [])],
            [(ZONE, "In", [zone, self.random.choice("abcd")])],
            [(ZONE, "NotIn", [self.random.choice("bcd")])],
            [("disk", "In", [home["disk"]]), ("size", "NotIn", ["5"])],
            [("absent", "DoesNotExist", [])],
            [("disk", "In", ["ssd"]), ("size", "NotIn", ["4"])],
        ]

    def _company(self, app: App) -> None:
        """Add affinity and anti-affinity to the app itself and to others."""
        for kind, share in (("podAntiAffinity", 0.25), ("podAffinity", 0.12)):
            if self.chance(share):
                term = {"topologyKey": self.random.choice([HOST, HOST, ZONE]), "labelSelector": self._selector(app)}
                if self.chance(0.2):
                    term["namespaceSelector"] = self.random.choice([{}, {"matchLabels": {"team": "a"}}])
                elif self.chance(0.2):
                    term["namespaces"] = self.random.sample(list(SPACES), 2)
                _affinity(app)[kind] = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}

    def _selector(self, app: App) -> dict[str, Any]:
        if self.chance(0.75):
            return {"matchLabels": {"app": app.name}}
        others = {"matchLabels": {"tier": self.random.choice(["front", "back"])}}
        return self.random.choice([others, {"matchExpressions": [{"key": "rev", "operator": "In", "values": ["1"]}]}])

    def _spread(self, app: App) -> None:
        if not self.chance(0.25):
            return
        constraints = []
        for key in self.random.sample([HOST, ZONE], self.random.choice([1, 1, 2])):
            constraint: dict[str, Any] = {
                "topologyKey": key,
                "maxSkew": self.random.randint(1, 3),
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": self._selector(app),
            }
            if self.chance(0.15):
                constraint["minDomains"] = self.random.randint(1, 5)
            if self.chance(0.2):
                constraint["nodeAffinityPolicy"] = self.random.choice(["Honor", "Ignore"])
            if self.chance(0.3):
                constraint["nodeTaintsPolicy"] = self.random.choice(["Honor", "Ignore"])
            if self.chance(0.2) and "matchLabels" in constraint["labelSelector"]:
                constraint["matchLabelKeys"] = ["rev"]
            constraints.append(constraint)
        app.spec["topologySpreadConstraints"] = constraints

    # -- pods that stay -----------------------------------------------------------------------------------------------

    def _staying(
        self, apps: list[App], nodes: list[dict[str, Any]], leaving: list[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """Yield more pods of the same apps, an agent on each node, and ballast that leaves the intended room."""
        others = nodes[1:]
        free = {n["metadata"]["name"]: _free(n) for n in others}
        kept = [n["metadata"]["name"] for n in others if not any(t["effect"] == "NoExecute" for t in _taints(n))]
        for app in apps:
            for number in range(self.random.choice([0, 0, 1, 2, 4]) if kept else 0):
                node = self.random.choice(kept)
                if free[node][0] >= app.cpu + 100 and free[node][1] >= app.memory + 100 and free[node][2] > 2:
                    yield app.pod(100 + number, node)
                    free[node] = (free[node][0] - app.cpu - 100, free[node][1] - app.memory - 100, free[node][2] - 1)
        everywhere = {"tolerations": [{"operator": "Exists"}]}
        agent = App(f"p{self.number}-agent", "three", 50, 32, everywhere)
        agent.containers = [self._container(50, 32)]
        for number, node in enumerate(nodes):
            yield agent.pod(number, node["metadata"]["name"])
        most = self.random.uniform(0.7, 1.3) if self.tight else self.random.uniform(2.5, 6)
        whole, asked = [sum(each) for each in zip(*free.values(), strict=True)], _asked(leaving)
        for number, (node, sizes) in enumerate(free.items()):
            shares = [max(0.0, 1 - most * ask / has) for ask, has in zip(asked, whole[:2], strict=True)]
            uneven = self.random.uniform(0.8, 1.1)
            cpu, memory = (int(size * min(1, share * uneven)) for size, share in zip(sizes, shares, strict=False))
            ballast = App(f"p{self.number}-ballast{number}", "three", cpu, memory, everywhere)
            ballast.containers = [self._container(cpu, memory)]
            yield ballast.pod(0, node)

    def _volumes(self, leaving: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return a bound volume in the drained node's zone for each claim."""
        found = []
        for pod in leaving:
            for volume in pod["spec"].get("volumes", ()):
                found += self._volume(volume["persistentVolumeClaim"]["claimName"], pod["metadata"]["namespace"])
        return found

    def _volume(self, name: str, space: str) -> list[dict[str, Any]]:
        zone = self.home.get(ZONE, self.zones[0])
        size = {"storage": "1Gi"}
        affinity = {
            "required": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": ZONE, "operator": "In", "values": [zone]}]}]
            }
        }
        by_label = self.chance(0.3)
        spec: dict[str, Any] = {
            "capacity": size,
            "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": "example.com", "volumeHandle": name},
            "storageClassName": "",
        }
        spec |= {} if by_label else {"nodeAffinity": affinity}
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "labels": {ZONE: zone} if by_label else {}},
            "spec": spec,
        }
        bound = {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": space, "annotations": bound},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": size},
                "volumeName": name,
                "storageClassName": "",
            },
        }
        return [volume, claim]


def _sizes(cpu: int, memory: int) -> list[tuple[str, str, bool]]:
    return [("cpu", f"{cpu}m", cpu > 0), ("memory", f"{memory}Mi", memory > 0)]


def _affinity(app: App) -> dict[str, Any]:
    found: dict[str, Any] = app.spec.setdefault("affinity", {})
    return found


def _taints(node: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = node["spec"].get("taints", [])
    return found


def _free(node: dict[str, Any]) -> tuple[int, int, int]:
    size = node["status"]["allocatable"]
    return int(size["cpu"]) * 1000 - 50, int(size["memory"][:-2]) * 1024 - 32, int(size["pods"])


def _fitting(pods: list[dict[str, Any]], node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield as many of these pods as the node has room for, because they were on it."""
    left = list(_free(node))
    for pod in pods:
        cpu, memory = _asked([pod])
        if left[0] >= cpu and left[1] >= memory and left[2] > 0:
            left = [left[0] - cpu, left[1] - memory, left[2] - 1]
            yield pod


def _asked(pods: list[dict[str, Any]]) -> tuple[int, int]:
    """Return CPU and memory that these pods request, roughly."""
    cpu = memory = 0
    for pod in pods:
        spec = pod["spec"]
        boxes = [spec.get("resources", {}).get("requests") or spec["containers"][0]["resources"].get("requests", {})]
        boxes += [c["resources"].get("requests", {}) for c in spec.get("initContainers", ())]
        cpu += max(int(box.get("cpu", "0m")[:-1]) for box in boxes)
        memory += max(int(box.get("memory", "0Mi")[:-2]) for box in boxes)
    return cpu or 1, memory or 1
