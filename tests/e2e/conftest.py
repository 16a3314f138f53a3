"""One control plane and one operator for each pytest process; each test has its own nodes, namespace and policy."""

import itertools
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness import ControlPlane, version_matrix, workloads
from harness.image import packages
from harness.min_ready import ready
from harness.observer import Observer
from harness.operators import NAMESPACE, Operator, install
from harness.waiting import until
from rescheduler.api.names import NODE_POOL, POOL, WAITING_TAINT_KEY
from rescheduler.core.model.raw import RawObject

OPERATOR = f"system:serviceaccount:{NAMESPACE}:rescheduler"
_COUNT = itertools.count(1)
_LONG = (
    "test_uninstall",
    "test_suspicions",
    "test_crash",
    "test_process",
    "test_proofs",
    "test_pools_changes",
    "test_upgrade",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the slowest files first: otherwise one process would be busy after all others are done.

    Leave out marked tests of what the selected version of Kubernetes lacks, and report the subject of all others.
    """
    items.sort(key=lambda item: item.path.stem not in _LONG)
    lacking = []
    for item in items:
        if marker := item.get_closest_marker(version_matrix.MARKER):
            item.user_properties.append(("subject", marker.args[0]))
            if not version_matrix.is_selected(marker.kwargs.get("since", "")):
                lacking.append(item)
    if lacking:
        config.hook.pytest_deselected(items=lacking)
        items[:] = [item for item in items if item not in lacking]


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    flags = {"kube-controller-manager": {"horizontal-pod-autoscaler-sync-period": "2s"}}
    # OpenShift's API server requires the right to delete an object before its owners change.
    flags["kube-apiserver"] = {"enable-admission-plugins": "OwnerReferencesPermissionEnforcement"}
    with ControlPlane.start(audit=True, extra_args=flags) as plane:
        yield plane


@pytest.fixture(scope="session")
def identity(control_plane: ControlPlane) -> Path:
    """Yield the kubeconfig of the chart's ServiceAccount; CRDs and RBAC are installed."""
    return install(control_plane)


@pytest.fixture(scope="session")
def image_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the Python packages that the image has, and no others."""
    return packages.make(tmp_path_factory.mktemp("image") / "packages")


@pytest.fixture(scope="session")
def operator(control_plane: ControlPlane, identity: Path, image_packages: Path) -> Iterator[Operator]:
    with Operator(identity, control_plane.workdir / "operator.log", packages=image_packages) as process:
        yield process


@pytest.fixture(scope="session")
def observer(control_plane: ControlPlane) -> Observer:
    return Observer(control_plane.kubeconfig)


@dataclass
class Site:
    """The part of the cluster of one test: nodes that only its policy selects, and a namespace."""

    plane: ControlPlane
    observer: Observer
    name: str
    made: list[str] = field(default_factory=list)

    def nodes(self, count: int, **options: Any) -> list[str]:
        names = self.plane.add_nodes(count, prefix=f"{self.name}-n", labels={"site": self.name}, **options)
        self.made += names
        return names

    def policy(self, **spec: Any) -> None:
        selector = {"matchLabels": {"site": self.name}}
        quick: dict[str, Any] = {"startupGrace": "0s", "recoverAfter": "2s", "maxUnhealthy": "100%"}
        quick |= {"conditions": [{"type": "Ready", "status": ["Unknown", "False"], "for": "2s"}]}
        failure = {**quick, **spec.pop("failure", {})}
        maintenance = {"maxUnavailable": "100%", **spec.pop("maintenance", {})}
        body = workloads.policy(self.name, nodeSelector=selector, failure=failure, maintenance=maintenance, **spec)
        self.plane.apply(body)

    def _until_ready(self, name: str, replicas: int) -> None:
        until(
            lambda: self.observer.ready(self.name, name) >= replicas,
            lambda: f"the pods of {name} in {self.name} to be Ready ({self.troubles()})",
            seconds=90,
        )

    def deploy(self, *objects: RawObject) -> None:
        """Create objects; wait until all their pods are Ready, and until their budgets have counted them."""
        self.plane.apply(*objects)
        for made in objects:
            if made["kind"] in ("Deployment", "StatefulSet"):
                name, replicas = made["metadata"]["name"], made["spec"]["replicas"]
                self._until_ready(name, replicas)
        if any(made["kind"] == "PodDisruptionBudget" for made in objects):
            until(lambda: self.observer.counted(self.name), f"the budgets of {self.name} to be observed")

    def troubles(self) -> str:
        """Return the reasons why pods are not Ready, for the error of a wait."""
        pods = [
            (p["metadata"]["name"], p["spec"].get("nodeName"), p.get("status", {}).get("conditions"))
            for p in self.observer.pods(self.name)
        ]
        return json.dumps(pods)[:2000]

    def here(self) -> dict[str, Any]:
        """Return pod spec fields that keep a workload on this site's nodes."""
        return {"nodeSelector": {"site": self.name}}

    def stuck(self, replicas: int) -> tuple[RawObject, RawObject]:
        """Return a Deployment `stuck` with a budget that allows no eviction."""
        budget = workloads.budget("stuck", self.name, maxUnavailable=0)
        return workloads.deployment("stuck", replicas, self.name, **self.here()), budget

    def on_first(self, first: str, others: list[str], *objects: RawObject) -> None:
        """Deploy with every pod on the first node."""
        self.plane.kubectl("cordon", *others)
        self.deploy(*objects)
        self.plane.kubectl("uncordon", *others)
        names = {made["metadata"]["name"] for made in objects}
        pods = [p for p in self.observer.pods(self.name) if p["metadata"]["labels"].get("app") in names]
        assert {pod["spec"]["nodeName"] for pod in pods} == {first}

    def release_one(self, first: str, others: list[str]) -> None:
        """Request the drain of the first node, and get a released pod whose replacement stays Pending."""
        self.plane.kubectl("cordon", *others)
        self.annotate(first)
        until(self.released, lambda: f"a pod to be released ({self.drain_status(first)})")

    def drain_status(self, node: str) -> str:
        """Return the status of a drain with its blockers, for the error of a wait."""
        return json.dumps((self.observer.drain(node) or {}).get("status"))[:2000]

    def classes(self, node: str) -> set[str]:
        """Return classes of a drain's blockers."""
        drain = self.observer.drain(node) or {}
        return {b["class"] for b in drain.get("status", {}).get("blockers", [])}

    def released(self) -> list[dict[str, Any]]:
        """Return pods whose controller is their Deployment."""
        return [pod for pod in self.observer.pods(self.name) if workloads.is_released(pod)]

    def calls(self, resource: str = "pods", *, names: Collection[str] = ()) -> list[dict[str, Any]]:
        """Return the operator's audited requests on a resource: those in this namespace, or on these objects."""
        assert self.plane.audit_log is not None
        found = [
            event
            for event in map(json.loads, self.plane.audit_log.read_text().splitlines())
            if event["user"]["username"] == OPERATOR
            and (reference := event.get("objectRef", {})).get("resource") == resource
            and (reference.get("namespace") == self.name or reference.get("name") in names)
        ]
        return sorted(found, key=lambda event: event["requestReceivedTimestamp"])

    def evictions(self) -> list[str]:
        """Return names of the pods that the operator evicted or tried to evict, without dry runs."""
        return [
            call["objectRef"]["name"]
            for call in self.calls()
            if call["objectRef"].get("subresource") == "eviction" and "dryRun" not in call["requestURI"]
        ]

    def hints(self, kind: str, name: str) -> set[str]:
        """Return reasons of the Events on an object of this namespace."""
        events = self.plane.get("events", "-n", self.name)["items"]
        return {
            e["reason"] for e in events if (e["involvedObject"]["kind"], e["involvedObject"]["name"]) == (kind, name)
        }

    def uids(self, node: str | None = None) -> set[str]:
        """Return UIDs of this site's pods, or of those on one node."""
        return {p["metadata"]["uid"] for p in self.observer.pods(self.name, node=node)}

    def annotate(self, node: str, value: str | None = "test") -> None:
        word = "rescheduler.dev/maintenance" + ("-" if value is None else f"={value}")
        self.plane.kubectl("annotate", "--overwrite", "node", node, word)

    def serve(self, node: str) -> None:
        """Set pods to Ready by hand if their template never does; their replacements stay unready."""
        until(lambda: all(p["status"]["phase"] == "Running" for p in self.observer.pods(self.name)), "the pods to run")
        for pod in self.observer.pods(self.name, node=node):
            serving = [{"type": "Ready", "status": "True", "lastTransitionTime": pod["metadata"]["creationTimestamp"]}]
            body, name = json.dumps({"status": {"conditions": serving}}), pod["metadata"]["name"]
            self.plane.kubectl("patch", "pod", name, "-n", self.name, "--subresource=status", "-p", body)

    def says(self, node: str, *reasons: str) -> None:
        """Wait for Events on a node: they are written in the background."""
        until(
            lambda: set(reasons) <= {e["reason"] for e in self.observer.events("Node", node)},
            f"the Events {reasons} on {node}",
        )

    def untainted(self, node: str) -> None:
        """Wait until the node has no taint; the node controller removes the taint of the cordon a moment later."""
        until(lambda: "taints" not in self.observer.node(node)["spec"], f"{node} to have no taint")

    def patch(self, kind: str, name: str, body: dict[str, Any], *more: str) -> None:
        self.plane.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(body), *more)

    def phase(self, node: str, *wanted: str | None, seconds: float = 90) -> None:
        until(
            lambda: self.observer.phase(node) in wanted,
            lambda: f"{node} to be {wanted} ({json.dumps(self.observer.drain(node))[:3000]})",
            seconds=seconds,
        )

    def gone(self, node: str) -> None:
        """Wait until the NodeDrain of the node is gone."""
        until(lambda: self.observer.drain(node) is None, f"the NodeDrain of {node} to be gone")

    def left(self, node: str) -> list[str]:
        """Return names of this site's pods on a node."""
        return sorted(pod["metadata"]["name"] for pod in self.observer.pods(self.name, node=node))


@pytest.fixture
def site(
    control_plane: ControlPlane, operator: Operator, observer: Observer, request: pytest.FixtureRequest
) -> Iterator[Site]:
    worker = getattr(request.config, "workerinput", {}).get("workerid", "")
    place = Site(control_plane, observer, f"t{next(_COUNT)}{worker}")
    control_plane.apply(workloads.namespace(place.name))
    yield place
    if place.made:
        control_plane.kubectl("annotate", "node", *place.made, "rescheduler.dev/maintenance-", check=False)
    control_plane.kubectl("delete", "namespace", place.name, "--ignore-not-found", "--wait=false")
    # A finalizer that a failed test left must not block the cleanup.
    force = ("--force", "--grace-period=0", "--wait=false")
    control_plane.kubectl("delete", "pods", "--all", "-n", place.name, *force, check=False)
    if place.made:
        control_plane.kubectl("delete", "node", *place.made, "--ignore-not-found")
    drains = [f"nd/{node}" for node in place.made]
    control_plane.kubectl("delete", *drains, f"rsp/{place.name}", "--ignore-not-found", "--wait=false")
    assert operator.running, operator.tail(40)


class Pooled:
    """A site with its own pools."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.made: list[str] = []
        self.name = f"{site.name}-pool"

    def pool(self, name: str | None = None, **spec: Any) -> str:
        """Return a pool of this site's nodes and namespace by default."""
        name = name or self.name
        if "namespaceSelector" not in spec:
            spec.setdefault("namespaces", [self.site.name])
        spec.setdefault("nodeSelector", {"matchLabels": {"site": self.site.name, "role": "pool"}})
        spec.setdefault("exclusive", False)
        self.made.append(name)
        self.site.plane.apply(workloads.pool(name, **spec))
        return name

    def nodes(self, count: int, role: str = "pool", **options: Any) -> list[str]:
        labels = {"site": self.site.name, "role": role}
        made = self.site.plane.add_nodes(count, prefix=f"{self.site.name}-{role}", labels=labels, **options)
        self.site.made += made
        return made

    def status(self, name: str | None = None) -> dict[str, Any]:
        return self.site.observer.pool(name or self.name) or {}

    def condition(self, type_: str, name: str | None = None) -> tuple[str, str, str]:
        found = (c for c in self.status(name).get("conditions", []) if c["type"] == type_)
        return next(((c["status"], c["reason"], c["message"]) for c in found), ("", "", ""))

    def label(self, namespace: str | None = None) -> str | None:
        found = self.site.observer.namespace(namespace or self.site.name)
        value: str | None = found["metadata"].get("labels", {}).get(POOL)
        return value

    def mark(self, node: str) -> tuple[str | None, list[str]]:
        """Return the pool label and the values of the exclusive taint."""
        found = self.site.observer.node(node)
        taints = found["spec"].get("taints", [])
        return found["metadata"]["labels"].get(NODE_POOL), [t["value"] for t in taints if t["key"] == POOL]

    def shunned(self, node: str) -> bool:
        """Whether pods are being moved off the node."""
        return any(t["key"] == WAITING_TAINT_KEY for t in self.site.observer.node(node)["spec"].get("taints", []))

    def settled(self, count: int, *nodes: str, seconds: float = 90) -> set[str]:
        """Wait until this number of the site's pods run on these nodes only; return UIDs of all observed pods."""
        seen: set[str] = set()

        def there() -> bool:
            pods = self.site.observer.pods(self.site.name)
            seen.update(pod["metadata"]["uid"] for pod in pods)
            running = [p for p in pods if ready(p) and "deletionTimestamp" not in p["metadata"]]
            return len(pods) == len(running) == count and {p["spec"]["nodeName"] for p in pods} <= set(nodes)

        until(there, lambda: f"{count} pods on {nodes} ({self.status()}, {self.site.troubles()})", seconds=seconds)
        return seen

    def marked(self, node: str, label: str | None, *taints: str) -> None:
        until(lambda: self.mark(node) == (label, list(taints)), f"{node} to be marked {label} {taints}")

    def says(self, type_: str, status: str, reason: str, name: str | None = None) -> str:
        """Wait for a condition; return its message."""
        until(
            lambda: self.condition(type_, name)[:2] == (status, reason),
            lambda: f"{type_} {status} {reason} ({self.status(name)})",
        )
        return self.condition(type_, name)[2]


@pytest.fixture
def pooled(site: Site) -> Iterator[Pooled]:
    found = Pooled(site)
    yield found
    for name in found.made:
        site.plane.kubectl("delete", "nsp", name, "--ignore-not-found")
